package guest

import "encoding/binary"

// AML opcodes and resource descriptor tags (ACPI 6.5, chapters 20.2 and 6.4).
const (
	amlZero       = 0x00
	amlOne        = 0x01
	amlNameOp     = 0x08
	amlBytePrefix = 0x0A
	amlWordPrefix = 0x0B
	amlDWord      = 0x0C
	amlString     = 0x0D
	amlQWord      = 0x0E
	amlScopeOp    = 0x10
	amlBufferOp   = 0x11
	amlPackageOp  = 0x12
	amlMethodOp   = 0x14
	amlExtOp      = 0x5B
	amlDeviceOp   = 0x82
	amlNotifyOp   = 0x86

	resIRQ      = 0x22 // small, 2 bytes: edge, active high, exclusive
	resIO       = 0x47 // small, 7 bytes
	resEnd      = 0x79 // small, 1 byte: checksum
	resMemory32 = 0x86 // large: Memory32Fixed
	resExtIRQ   = 0x89 // large: Interrupt()
)

// join concatenates pieces of AML.
func join(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

// amlPkg is a PkgLength followed by body. PkgLength counts its own bytes, and
// how many those are depends on the sum: 1 up to 63, then 4 bits of the value
// in the first byte and 8 in each of 1 to 3 more.
func amlPkg(body []byte) []byte {
	n := len(body)
	if n+1 <= 0x3F {
		return join([]byte{byte(n + 1)}, body)
	}
	extra := 1
	for n+1+extra >= 1<<(4+8*extra) {
		extra++
	}
	n += 1 + extra
	head := []byte{byte(extra<<6 | n&0xF)}
	for n >>= 4; extra > 0; extra-- {
		head = append(head, byte(n))
		n >>= 8
	}
	return join(head, body)
}

// amlInt is the shortest encoding of v.
func amlInt(v uint64) []byte {
	le := binary.LittleEndian
	switch {
	case v == 0:
		return []byte{amlZero}
	case v == 1:
		return []byte{amlOne}
	case v <= 0xFF:
		return []byte{amlBytePrefix, byte(v)}
	case v <= 0xFFFF:
		return le.AppendUint16([]byte{amlWordPrefix}, uint16(v))
	case v <= 0xFFFF_FFFF:
		return le.AppendUint32([]byte{amlDWord}, uint32(v))
	}
	return le.AppendUint64([]byte{amlQWord}, v)
}

// amlText is the string s, which is ASCII without NUL.
func amlText(s string) []byte { return join([]byte{amlString}, []byte(s), []byte{0}) }

// amlEISA is a compressed EISA id such as PNP0501: three letters of five bits,
// four hexadecimal digits, stored with the most significant byte first.
func amlEISA(id string) []byte {
	v := uint32(id[0]-'@')<<26 | uint32(id[1]-'@')<<21 | uint32(id[2]-'@')<<16
	for i, c := range []byte(id[3:7]) {
		d := uint32(c - '0')
		if c >= 'A' {
			d = uint32(c-'A') + 10
		}
		v |= d << (12 - 4*i)
	}
	return binary.BigEndian.AppendUint32([]byte{amlDWord}, v)
}

// amlName declares an object; name is a segment of four characters.
func amlName(name string, object []byte) []byte {
	return join([]byte{amlNameOp}, []byte(name), object)
}

func amlScope(name string, body ...[]byte) []byte {
	return join([]byte{amlScopeOp}, amlPkg(join([]byte(name), join(body...))))
}

func amlDevice(name string, body ...[]byte) []byte {
	return join([]byte{amlExtOp, amlDeviceOp}, amlPkg(join([]byte(name), join(body...))))
}

func amlPackage(elements ...[]byte) []byte {
	return join([]byte{amlPackageOp}, amlPkg(join([]byte{byte(len(elements))}, join(elements...))))
}

// amlMethod is a method, serialized, with args arguments.
func amlMethod(name string, args byte, body ...[]byte) []byte {
	const serialized = 1 << 3
	return join([]byte{amlMethodOp}, amlPkg(join([]byte(name), []byte{args | serialized}, join(body...))))
}

// amlNotify is Notify(device, v); the device is looked for in the scopes around.
func amlNotify(device string, v uint64) []byte {
	return join([]byte{amlNotifyOp}, []byte(device), amlInt(v))
}

// amlResources is a ResourceTemplate: a buffer of descriptors with an end tag,
// whose checksum 0 means that there is none.
func amlResources(descriptors ...[]byte) []byte {
	b := join(join(descriptors...), []byte{resEnd, 0})
	return join([]byte{amlBufferOp}, amlPkg(join(amlInt(uint64(len(b))), b)))
}

// resIOPorts is IO(Decode16, port, port, 1, n).
func resIOPorts(port uint16, n byte) []byte {
	return []byte{resIO, 1, byte(port), byte(port >> 8), byte(port), byte(port >> 8), 1, n}
}

// resISAIRQ is IRQNoFlags() {irq}: edge-triggered, active high, exclusive.
func resISAIRQ(irq uint) []byte {
	return binary.LittleEndian.AppendUint16([]byte{resIRQ}, 1<<irq)
}

// resMemory is Memory32Fixed(ReadWrite, addr, size).
func resMemory(addr, size uint32) []byte {
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32([]byte{resMemory32, 9, 0, 1}, addr), size)
}

// resInterrupt is Interrupt(ResourceConsumer, Edge, ActiveHigh, Exclusive) {gsi}.
func resInterrupt(gsi uint32) []byte {
	const consumerEdge = 1<<0 | 1<<1
	return binary.LittleEndian.AppendUint32([]byte{resExtIRQ, 6, 0, consumerEdge, 1}, gsi)
}
