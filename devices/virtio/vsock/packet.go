package vsock

import "encoding/binary"

// CIDs with a meaning (section 5.10.4).
const (
	hostCID = 2
	// MinCID and MaxCID are what a guest can have.
	MinCID = 3
	MaxCID = 1<<32 - 2
)

// typeStream is the only type of socket there is here; SEQPACKET is not offered.
const typeStream = 1

// Operations (section 5.10.6).
const (
	opInvalid = iota
	opRequest
	opResponse
	opReset
	opShutdown
	opRW
	opCreditUpdate
	opCreditRequest
)

// Flags of a shutdown: who says it receives, or sends, no more.
const (
	shutReceive = 1
	shutSend    = 2
	shutBoth    = shutReceive | shutSend
)

// headerSize is that of struct virtio_vsock_hdr.
const headerSize = 44

// header is struct virtio_vsock_hdr: all that a packet is but its payload.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	length           uint32
	kind, op         uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func parseHeader(b *[headerSize]byte) header {
	le := binary.LittleEndian
	return header{
		srcCID: le.Uint64(b[0:]), dstCID: le.Uint64(b[8:]), srcPort: le.Uint32(b[16:]), dstPort: le.Uint32(b[20:]),
		length: le.Uint32(b[24:]), kind: le.Uint16(b[28:]), op: le.Uint16(b[30:]), flags: le.Uint32(b[32:]),
		bufAlloc: le.Uint32(b[36:]), fwdCnt: le.Uint32(b[40:]),
	}
}

func (h *header) put(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// refusal is the answer to a packet that is of no connection.
func (h *header) refusal() header {
	return header{
		srcCID: h.dstCID, dstCID: h.srcCID, srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: opReset,
	}
}
