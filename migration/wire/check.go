package wire

import (
	"encoding/binary"
	"hash/crc32"
)

// Castagnoli is the polynomial of every checksum in the stream.
var Castagnoli = crc32.MakeTable(crc32.Castagnoli)

// What TCP's own checksum lets through, and what a broken host does to bytes
// before it or after it, must not become a message that was never sent: a
// RUNNING read as FAILED would have the guest run twice, a page number that
// changed would leave old contents in place. So a header has a check of itself,
// since a wrong length has a reader wait for bytes that never come, and a
// checksum of the body. Guest pages alone go unchecked by it.

// HeaderSize is the length of a message's header in bytes, in both directions.
// Wire: type be16, check be16, length of the body be32, CRC-32C of the body
// be32. The CRC of a RAM message is of its body without the pages.
const HeaderSize = 12

// appendHeader appends a header.
func appendHeader(b []byte, typ uint16, length, sum uint32) []byte {
	from := len(b)
	b = binary.BigEndian.AppendUint16(b, typ)
	b = binary.BigEndian.AppendUint16(b, 0)
	b = binary.BigEndian.AppendUint32(b, length)
	b = binary.BigEndian.AppendUint32(b, sum)
	setCheck(b[from:])
	return b
}

func setCheck(header []byte) { binary.BigEndian.PutUint16(header[2:], headerCheck(header)) }

// headerCheck works out what bytes 2 and 3 of a header have to be.
func headerCheck(header []byte) uint16 {
	sum := updateShort(updateShort(^uint32(0), header[:2]), header[4:HeaderSize])
	return uint16(sum>>16) ^ uint16(sum)
}

// seal completes the message that starts at from and goes to the end of b with
// the checksum of its body.
func seal(b []byte, from int) []byte {
	return setSum(b, from, crc32.Checksum(b[from+HeaderSize:], Castagnoli))
}

// sealShort is seal for a body of few bytes. It lets b stay on the stack.
func sealShort(b []byte, from int) []byte {
	return setSum(b, from, shortSum(b[from+HeaderSize:]))
}

func setSum(b []byte, from int, sum uint32) []byte {
	binary.BigEndian.PutUint32(b[from+8:], sum)
	setCheck(b[from:])
	return b
}

// shortSum is the CRC-32C of few bytes.
func shortSum(p []byte) uint32 { return ^updateShort(^uint32(0), p) }

func updateShort(sum uint32, p []byte) uint32 {
	for _, v := range p {
		sum = Castagnoli[byte(sum)^v] ^ sum>>8
	}
	return sum
}

// damaged is the error of a message whose checksum is not that of its body.
func damaged(message string, got, want uint32) error {
	return errorf(message, "damaged on its way: CRC-32C %08x, sent with %08x", got, want)
}
