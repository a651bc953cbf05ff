package wire

import (
	"bytes"
	"hash/crc32"
	"io"
	"runtime"
	"testing"
)

// allocated says how many bytes f allocates.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestALengthAnnouncedIsNotALengthAllocated(t *testing.T) {
	limit, _ := TypePackaged.MaxBody()
	message := append(AppendHeader(nil, Header{Type: TypePackaged, Length: limit}), make([]byte, 10)...)
	got := allocated(func() {
		r := bytes.NewReader(message)
		h, err := ReadHeader(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadBody(r, h); err != io.ErrUnexpectedEOF {
			t.Errorf("error %v, want %v", err, io.ErrUnexpectedEOF)
		}
	})
	if most := uint64(4 * bodyStep); got > most {
		t.Errorf("10 bytes of %d made this side allocate %d bytes, more than %d", limit, got, most)
	}
}

func TestALongBodyArrivesWhole(t *testing.T) {
	want := make([]byte, 3*bodyStep+17)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	got, err := ReadBody(bytes.NewReader(want), Header{TypePackaged, uint32(len(want)), crc32.Checksum(want, Castagnoli)})
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// What a page fault sends and what answers it must not wait for the garbage
// collector.
func TestRequestsForPagesDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, 1024)
	in := make([]byte, MaxReturnBody)
	r := bytes.NewReader(nil)
	if n := testing.AllocsPerRun(100, func() {
		message := AppendReqPages(buf, "ram", 4096, 4096)
		message = AppendReqPages(message, "", 8192, 4096)
		r.Reset(message)
		for range 2 {
			_, body, err := ReadReturn(r, in)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := DecodeReqPages(body); err != nil {
				t.Fatal(err)
			}
		}
		var ram [RAMHeaderSize]byte
		AppendRAM(ram[:0], RAM{Count: 1})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
