package wire

import "encoding/binary"

// Sync is SYNC, number seq, which keeps order between channels: it is sent on
// main and on every multi channel, and nothing that follows it on any of them
// is dealt with before everything that precedes it on all of them. The first is
// number 1, and each is one more than the one before. Wire: be32.
func Sync(seq uint32) []byte {
	return Message(TypeSync, binary.BigEndian.AppendUint32(nil, seq))
}

// DecodeSync decodes the body of a SYNC.
func DecodeSync(b []byte) (seq uint32, err error) {
	if len(b) != 4 {
		return 0, errorf("SYNC", "body of %d bytes, not 4", len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}
