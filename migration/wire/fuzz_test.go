package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"reflect"
	"testing"
)

// fuzzBody fuzzes a decoder of bodies: it does not panic, does not allocate
// beyond a small multiple of what it was given, and what it accepts, encoded
// and decoded again, is the same.
func fuzzBody[T any](f *testing.F, typ Type, decode func([]byte) (T, error), encode func(T) []byte, seeds ...T) {
	for _, s := range seeds {
		f.Add(encode(s)[HeaderSize:])
	}
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{0xFF}, 64))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x T
		var err error
		if n := allocated(func() { x, err = decode(b) }); n > 1<<20+64*uint64(len(b)) {
			t.Errorf("%d bytes made the decoder allocate %d", len(b), n)
		}
		if err != nil {
			return
		}
		message := encode(x)
		if limit, _ := typ.MaxBody(); len(b) <= int(limit) {
			if _, err := DecodeHeader([HeaderSize]byte(message)); err != nil {
				t.Fatalf("encoded again: %v", err)
			}
		}
		y, err := decode(message[HeaderSize:])
		if err != nil {
			t.Fatalf("encoded and decoded again: %v", err)
		}
		if !reflect.DeepEqual(x, y) {
			t.Errorf("decoded %+v, encoded and decoded again %+v", x, y)
		}
	})
}

func FuzzAdvise(f *testing.F) {
	fuzzBody(f, TypeAdvise, DecodeAdvise, func(a Advise) []byte { return a.Append(nil) }, Advise{4096, []uint64{4096, 2 << 20}})
}

func FuzzDiscard(f *testing.F) {
	fuzzBody(f, TypeDiscard, DecodeDiscard, func(d Discard) []byte { return d.Append(nil) }, Discard{"ram", []Range{{1, 2}, {5, 1}}})
}

func FuzzDeviceState(f *testing.F) {
	fuzzBody(f, TypeDeviceState, DecodeDeviceState, func(d DeviceState) []byte { return d.Append(nil) }, DeviceState{ID: "cpu0", Version: 1, Flags: StateConfig, Data: []byte("state")}, DeviceState{ID: "gpu0", Index: 7, Data: []byte("part")}, DeviceState{ID: "gpu0", Flags: StateByMulti})
}

func FuzzChecksums(f *testing.F) {
	fuzzBody(f, TypeChecksums, DecodeChecksums, func(c Checksums) []byte { return c.Append(nil) }, Checksums{1, 2, []uint32{3, 4}})
}

func FuzzComplete(f *testing.F) {
	fuzzBody(f, TypeComplete, DecodeComplete, func(c Complete) []byte { return c.Append(nil) }, Complete{1, 2, 3})
}

func FuzzPing(f *testing.F) {
	fuzzBody(f, TypePing, DecodePing, Ping, 7)
}

func FuzzSync(f *testing.F) {
	fuzzBody(f, TypeSync, DecodeSync, Sync, 1)
}

// FuzzConfig encodes twice: the first time brings the machine's own part, which
// is opaque, into the form that JSON is written in.
func FuzzConfig(f *testing.F) {
	f.Add(config1("ram", 1<<20, 4096))
	f.Add([]byte(`{"vm":"a","blocks":[{"name":"ram","size":4096,"page_size":4096}],"devices":[{"id":"kvm","version":1}],"machine":{"x": [1, "<"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := DecodeConfig(b)
		if err != nil {
			return
		}
		if len(x.Blocks) == 0 || len(x.Blocks) > MaxBlocks {
			t.Errorf("%d blocks accepted", len(x.Blocks))
		}
		again := func(c Config) Config {
			body, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			c, err = DecodeConfig(body)
			if err != nil {
				t.Fatalf("encoded and decoded again: %v", err)
			}
			return c
		}
		y := again(x)
		if z := again(y); !reflect.DeepEqual(y, z) {
			t.Errorf("decoded %+v, encoded and decoded again %+v", y, z)
		}
		x.Machine, y.Machine = nil, nil
		if !reflect.DeepEqual(x, y) {
			t.Errorf("decoded %+v, encoded and decoded again %+v", x, y)
		}
	})
}

func FuzzHeader(f *testing.F) {
	f.Add(AppendHeader(nil, Header{Type: TypeRAM, Length: RAMFixedSize}))
	f.Add(AppendHeader(nil, Header{Type: TypePackaged, Length: 64 << 20}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= HeaderSize {
			setCheck(b) // or next to nothing would come further
		}
		h, err := ReadHeader(bytes.NewReader(b))
		if err != nil {
			return
		}
		if limit, ok := h.Type.MaxBody(); !ok || h.Length > limit {
			t.Errorf("header %+v accepted", h)
		}
		if got := AppendHeader(nil, h); !bytes.Equal(got, b[:HeaderSize]) {
			t.Errorf("% x encoded again is % x", b[:HeaderSize], got)
		}
	})
}

func FuzzHello(f *testing.F) {
	f.Add(Hello{MinVersion: 1, MaxVersion: 2, ID: ID{1, 2, 3}, Role: RoleUrgent}.Append(nil))
	f.Add(Hello{MinVersion: 1, MaxVersion: 1, Role: RoleMulti, Index: 3, Multi: 4}.Append(nil))
	f.Add([]byte("microvm\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= helloSize {
			binary.BigEndian.PutUint32(b[helloFields:], shortSum(b[:helloFields]))
		}
		h, err := ReadHello(bytes.NewReader(b))
		if err != nil {
			return
		}
		if got := h.Append(nil); !bytes.Equal(got, b[:helloSize]) {
			t.Errorf("% x encoded again is % x", b[:helloSize], got)
		}
	})
}

func FuzzWelcome(f *testing.F) {
	f.Add(Welcome{Version: 1}.Append(nil))
	f.Add(Welcome{Refusal: "a migration is under way"}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= len(magic)+HeaderSize {
			b = seal(b, len(magic))
		}
		w, err := ReadWelcome(bytes.NewReader(b))
		if err != nil {
			return
		}
		if len(w.Refusal) > MaxText {
			t.Errorf("text of %d bytes accepted", len(w.Refusal))
		}
		if got := w.Append(nil); !bytes.Equal(got, b[:len(got)]) {
			t.Errorf("% x encoded again is % x", b, got)
		}
	})
}

func FuzzRAM(f *testing.F) {
	f.Add(AppendRAM(nil, RAM{Block: 1, Kind: KindZero, Count: 9, First: 7})[HeaderSize:], uint32(RAMFixedSize))
	f.Add(AppendRAM(nil, RAM{Kind: KindS2, Count: 3, Summed: true, Sum: 5, Compressed: 9})[HeaderSize:], uint32(RAMFixedSize+9))
	f.Add(AppendRAM(nil, RAM{Count: 512})[HeaderSize:], uint32(RAMFixedSize+512*PageSize))
	f.Fuzz(func(t *testing.T, b []byte, length uint32) {
		if len(b) < RAMFixedSize {
			return
		}
		h := Header{TypeRAM, length, shortSum(b[:RAMFixedSize])}
		r, err := DecodeRAM([RAMFixedSize]byte(b), h)
		if err != nil {
			return
		}
		if r.Kind == KindData && uint64(length) != RAMFixedSize+uint64(r.Count)*PageSize {
			t.Errorf("%d pages of data accepted in a body of %d bytes", r.Count, length)
		}
		if r.Compressed != 0 && uint64(r.Compressed) >= uint64(r.Count)*PageSize {
			t.Errorf("%d compressed pages accepted in %d bytes", r.Count, r.Compressed)
		}
		want := append(AppendHeader(nil, h), b[:RAMFixedSize]...)
		if got := AppendRAM(nil, r); !bytes.Equal(got, want) {
			t.Errorf("% x encoded again is % x", want, got)
		}
	})
}

// FuzzReturn reads a whole return path, message after message.
func FuzzReturn(f *testing.F) {
	b := AppendPong(nil, 1)
	b = AppendReqPages(b, "ram", 4096, 8192)
	b = AppendReqPages(b, "", 0, 4096)
	b = AppendLoaded(b, 5)
	b = AppendRunning(b, Running{1, 2})
	b = AppendFailed(b, Failed{FailureOther, "why"})
	b = AppendStats(b, []byte("{}"))
	b = AppendRecvBitmap(b, "ram", 8, []byte{0xFF, 1})
	b = AppendResumeAck(b, ResumeRunning)
	b = AppendPageSizes(b, []uint64{4096, 2 << 20})
	f.Add(AppendShut(b, 0))
	f.Add([]byte{0, 3, 0, 16})
	buf := make([]byte, MaxReturnBody)
	f.Fuzz(func(t *testing.T, b []byte) {
		resealAll(b)
		for r := bytes.NewReader(b); ; {
			from := len(b) - r.Len()
			typ, body, err := ReadReturn(r, buf)
			if err != nil {
				return
			}
			var again []byte
			switch typ {
			case ReturnShut:
				again = AppendShut(nil, DecodeUint32(body))
			case ReturnPong:
				again = AppendPong(nil, DecodeUint32(body))
			case ReturnReqPages:
				req, err := DecodeReqPages(body)
				if err != nil {
					continue
				}
				again = AppendReqPages(nil, string(req.Block), req.Start, req.Len)
			case ReturnLoaded:
				again = AppendLoaded(nil, DecodeLoaded(body))
			case ReturnRunning:
				again = AppendRunning(nil, DecodeRunning(body))
			case ReturnFailed:
				again = AppendFailed(nil, DecodeFailed(body))
			case ReturnStats:
				again = AppendStats(nil, body)
			case ReturnResumeAck:
				again = AppendResumeAck(nil, DecodeUint32(body))
			case ReturnPageSizes:
				sizes, err := DecodePageSizes(body)
				if err != nil {
					continue
				}
				again = AppendPageSizes(nil, sizes)
			case ReturnRecvBitmap:
				m, err := DecodeRecvBitmap(body)
				if err != nil {
					continue
				}
				again = AppendRecvBitmap(nil, string(m.Block), m.First, m.Bitmap)
			case ReturnFindings:
				continue // JSON: see FuzzFindings
			default:
				t.Fatalf("%v accepted", typ)
			}
			if to := len(b) - r.Len(); !bytes.Equal(again, b[from:to]) {
				t.Errorf("% x encoded again is % x", b[from:to], again)
			}
		}
	})
}

// resealAll makes every check in a row of messages right: or next to nothing
// that a fuzzer makes would come further.
func resealAll(b []byte) {
	for len(b) >= HeaderSize {
		end := min(HeaderSize+uint64(binary.BigEndian.Uint32(b[4:])), uint64(len(b)))
		seal(b[:end], 0)
		b = b[end:]
	}
}

func FuzzReqPages(f *testing.F) {
	f.Add(AppendReqPages(nil, "ram", 4096, 4096)[HeaderSize:])
	f.Add(AppendReqPages(nil, "", 1<<63, 1<<62)[HeaderSize:])
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReqPages(b)
		if err != nil {
			return
		}
		if r.Len == 0 || r.Len%PageSize != 0 || r.Start%PageSize != 0 || r.Start+r.Len < r.Start {
			t.Errorf("%+v accepted", r)
		}
		if got := AppendReqPages(nil, string(r.Block), r.Start, r.Len)[HeaderSize:]; !bytes.Equal(got, b) {
			t.Errorf("% x encoded again is % x", b, got)
		}
	})
}
