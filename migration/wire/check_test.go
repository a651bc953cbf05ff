package wire

import (
	"bytes"
	"errors"
	"hash/crc32"
	"io"
	"testing"
)

// Whatever becomes of one byte of a message, it is not taken for another one,
// and nobody waits for more bytes than were sent: only the guest's pages are
// not looked at.
func TestAMessageWithOneByteDamagedIsRefused(t *testing.T) {
	forward := func(r io.Reader) error {
		h, err := ReadHeader(r)
		if err == nil {
			_, err = ReadBody(r, h)
		}
		return err
	}
	back := func(r io.Reader) error { _, _, err := ReadReturn(r, make([]byte, MaxReturnBody)); return err }
	for _, c := range []struct {
		name    string
		message []byte
		read    func(io.Reader) error
	}{
		{"hello", Hello{MinVersion: 1, MaxVersion: 1, ID: ID{7}, Role: RoleMain}.Append(nil), func(r io.Reader) error { _, err := ReadHello(r); return err }},
		{"welcome", Welcome{Version: 1}.Append(nil), func(r io.Reader) error { _, err := ReadWelcome(r); return err }},
		{"refusal", Welcome{Refusal: "busy"}.Append(nil), func(r io.Reader) error { _, err := ReadWelcome(r); return err }},
		{"PING", Ping(1), forward},
		{"POSTCOPY_RUN", Message(TypeRun, nil), forward},
		{"ADVISE", Advise{PageSize, []uint64{4096}}.Append(nil), forward},
		{"DISCARD", Discard{"ram", []Range{{1, 2}}}.Append(nil), forward},
		{"PACKAGED", Message(TypePackaged, DeviceState{ID: "kvm", Data: []byte("state")}.Append(nil)), forward},
		{"CHECKSUMS", Checksums{0, 1, []uint32{2}}.Append(nil), forward},
		{"COMPLETE", Complete{1, 2, 3}.Append(nil), forward},
		{"zero pages", AppendRAM(nil, RAM{Block: 1, Kind: KindZero, Count: 9, First: 7}), forward},
		{"RUNNING", AppendRunning(nil, Running{1, 2}), back},
		{"SHUT", AppendShut(nil, 0), back},
		{"REQ_PAGES", AppendReqPages(nil, "ram", 4096, 8192), back},
		{"RESUME_ACK", AppendResumeAck(nil, ResumeRunning), back},
		{"RECV_BITMAP", AppendRecvBitmap(nil, "ram", 8, []byte{0xF0}), back},
		{"FAILED", AppendFailed(nil, Failed{FailureOther, "why"}), back},
		{"STATS", AppendStats(nil, []byte("{}")), back},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.read(bytes.NewReader(c.message)); err != nil {
				t.Fatalf("undamaged: %v", err)
			}
			for i := range c.message {
				for flip := 1; flip < 256; flip++ {
					damaged := bytes.Clone(c.message)
					damaged[i] ^= byte(flip)
					if err := c.read(bytes.NewReader(damaged)); !errors.As(err, new(*Error)) {
						t.Fatalf("byte %d of %d, changed by %#x: error %v, want an *Error", i, len(c.message), flip, err)
					}
				}
			}
		})
	}
}

func TestTheShortSumIsTheOtherOne(t *testing.T) {
	for _, p := range []string{"", "1", "123456789"} {
		if got, want := shortSum([]byte(p)), crc32.Checksum([]byte(p), Castagnoli); got != want {
			t.Errorf("%q: %08x, want %08x", p, got, want)
		}
	}
}
