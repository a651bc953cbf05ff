package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// refusal is an input that a decoder must turn down, and words that its error
// must hold.
type refusal struct {
	name string
	err  func() error
	want []string
}

func headerErr(typ Type, length uint32) func() error {
	return func() error {
		_, err := DecodeHeader([HeaderSize]byte(AppendHeader(nil, Header{Type: typ, Length: length})))
		return err
	}
}

func body(b ...byte) []byte { return b }

func decode[T any](f func([]byte) (T, error), b []byte) func() error {
	return func() error { _, err := f(b); return err }
}

func ram(r RAM, reserved byte, length uint32) func() error {
	return func() error {
		b := AppendRAM(nil, r)
		b[HeaderSize+3] = reserved
		b = seal(b, 0)
		_, err := DecodeRAM([RAMFixedSize]byte(b[HeaderSize:]), Header{TypeRAM, length, binary.BigEndian.Uint32(b[8:])})
		return err
	}
}

func hello(change func(b []byte)) func() error {
	return func() error {
		b := Hello{MinVersion: 1, MaxVersion: 1, Role: RoleMain}.Append(nil)
		change(b)
		binary.BigEndian.PutUint32(b[helloFields:], shortSum(b[:helloFields]))
		_, err := ReadHello(bytes.NewReader(b))
		return err
	}
}

func welcome(b []byte) func() error {
	return func() error { _, err := ReadWelcome(bytes.NewReader(b)); return err }
}

func returnErr(typ ReturnType, length int) func() error {
	return func() error {
		b := seal(append(appendReturn(nil, typ, length), make([]byte, length)...), 0)
		_, _, err := ReadReturn(bytes.NewReader(b), make([]byte, MaxReturnBody))
		return err
	}
}

func reqPages(start, length uint64, tail ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, start)
	b = binary.BigEndian.AppendUint64(b, length)
	return append(b, tail...)
}

func TestDecodersRefuseWithTheProblemNamed(t *testing.T) {
	cases := []refusal{
		{"header: unknown type", headerErr(77, 0), []string{"message type 77", "no such message"}},
		{"header: type 0", headerErr(0, 0), []string{"message type 0"}},
		{"PING: short", decode(DecodePing, body(1, 2, 3)), []string{"PING", "3 bytes", "4"}},
		{"PING: empty", decode(DecodePing, nil), []string{"PING", "0 bytes"}},

		{"SYNC: short", decode(DecodeSync, body(1, 2, 3)), []string{"SYNC", "3 bytes", "4"}},

		{"CONFIG: no JSON", decode(DecodeConfig, []byte("{")), []string{"CONFIG", "JSON"}},
		{"CONFIG: a field of tomorrow", decode(DecodeConfig, []byte(`{"teleport": true}`)), []string{"CONFIG", "does not do", `"teleport"`}},
		{"CONFIG: a compression of tomorrow", decode(DecodeConfig, []byte(`{"compress": "lz5", "blocks": [{"name": "r", "size": 4096, "page_size": 4096}]}`)), []string{"CONFIG", `"lz5"`, "s2, zstd"}},
		{"CONFIG: more after it", decode(DecodeConfig, []byte(`{} {}`)), []string{"CONFIG", "2 bytes after"}},
		{"CONFIG: no block", decode(DecodeConfig, []byte("{}")), []string{"CONFIG", "0 RAM blocks", "64"}},
		{"CONFIG: 65 blocks", decode(DecodeConfig, configOf(65)), []string{"CONFIG", "65 RAM blocks"}},
		{"CONFIG: block without a name", decode(DecodeConfig, config1("", 4096, 4096)), []string{"CONFIG", "name has 0 bytes"}},
		{"CONFIG: name too long", decode(DecodeConfig, config1(longName+"n", 4096, 4096)), []string{"CONFIG", "name has 256 bytes"}},
		{"CONFIG: name twice", decode(DecodeConfig, []byte(`{"blocks":[{"name":"a","size":4096,"page_size":4096},{"name":"a","size":4096,"page_size":4096}]}`)), []string{"CONFIG", `"a"`, "twice"}},
		{"CONFIG: page size 0", decode(DecodeConfig, config1("a", 4096, 0)), []string{"CONFIG", `"a"`, "page size 0"}},
		{"CONFIG: page size 6000", decode(DecodeConfig, config1("a", 6000, 6000)), []string{"page size 6000", "power of two"}},
		{"CONFIG: page size 2048", decode(DecodeConfig, config1("a", 4096, 2048)), []string{"page size 2048"}},
		{"CONFIG: size 0", decode(DecodeConfig, config1("a", 0, 4096)), []string{"size 0", "4096"}},
		{"CONFIG: half a page", decode(DecodeConfig, config1("a", 4097, 4096)), []string{"size 4097", "4096"}},
		{"CONFIG: negative size", decode(DecodeConfig, []byte(`{"blocks":[{"name":"a","size":-1,"page_size":4096}]}`)), []string{"CONFIG", "-1"}},

		{"ADVISE: short", decode(DecodeAdvise, make([]byte, 5)), []string{"POSTCOPY_ADVISE", "5 bytes"}},
		{"ADVISE: a size short", decode(DecodeAdvise, body(0, 0, 16, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0)), []string{"POSTCOPY_ADVISE", "2 blocks in 8 bytes"}},
		{"ADVISE: 65 blocks", decode(DecodeAdvise, Advise{PageSizes: make([]uint64, 65)}.Append(nil)[HeaderSize:]), []string{"POSTCOPY_ADVISE", "65 blocks"}},

		{"RAM: no pages", ram(RAM{Kind: KindZero}, 0, RAMFixedSize), []string{"RAM", "no pages"}},
		{"RAM: too many pages", ram(RAM{Count: MaxRunPages + 1}, 0, RAMFixedSize+(MaxRunPages+1)*PageSize), []string{"RAM", "513 pages"}},
		{"RAM: length of 2^32 pages", ram(RAM{Count: 1 << 20}, 0, RAMFixedSize), []string{"RAM", "1048576 pages of data in a body of 20 bytes"}},
		{"RAM: payload short", ram(RAM{Count: 2}, 0, RAMFixedSize+PageSize), []string{"RAM", "2 pages of data in a body of 4116 bytes"}},
		{"RAM: zeros with a payload", ram(RAM{Kind: KindZero, Count: 1}, 0, RAMFixedSize+PageSize), []string{"RAM", "zero pages", "4116"}},
		{"RAM: compressed to nothing", ram(RAM{Kind: KindS2, Count: 2}, 0, RAMFixedSize), []string{"RAM", "2 compressed pages", "20 bytes"}},
		{"RAM: compressed and no smaller", ram(RAM{Kind: KindZstd, Count: 2}, 0, RAMFixedSize+2*PageSize), []string{"RAM", "2 compressed pages", "8212 bytes"}},
		{"RAM: too many pages compressed", ram(RAM{Kind: KindS2, Count: MaxRunPages + 1}, 0, RAMFixedSize+1), []string{"RAM", "513 compressed pages"}},
		{"RAM: a checksum where there is none", ram(RAM{Kind: KindZero, Count: 1, Sum: 0xABCD}, 0, RAMFixedSize), []string{"RAM", "0000abcd"}},
		{"RAM: shorter than its fixed part", ram(RAM{Count: 1}, 0, 7), []string{"RAM", "body of 7 bytes", "20"}},
		{"RAM: unknown kind", ram(RAM{Kind: 200, Count: 1}, 0, RAMFixedSize), []string{"RAM", "kind 200"}},
		{"RAM: reserved", ram(RAM{Kind: KindZero, Count: 1}, 5, RAMFixedSize), []string{"RAM", "reserved", "0x5"}},

		{"DISCARD: empty", decode(DecodeDiscard, nil), []string{"RAM_DISCARD", "name"}},
		{"DISCARD: name past the end", decode(DecodeDiscard, body(5, 'r')), []string{"RAM_DISCARD", "name"}},
		{"DISCARD: no count", decode(DecodeDiscard, body(1, 'r', 0)), []string{"RAM_DISCARD"}},
		{"DISCARD: a range short", decode(DecodeDiscard, append(body(1, 'r', 0, 2), make([]byte, 16)...)), []string{"RAM_DISCARD", "2 ranges in 16 bytes"}},
		{"DISCARD: too many", decode(DecodeDiscard, Discard{"r", make([]Range, MaxDiscardRanges+1)}.Append(nil)[HeaderSize:]), []string{"RAM_DISCARD", "1025 ranges"}},

		{"DEVICE_STATE: empty", decode(DecodeDeviceState, nil), []string{"DEVICE_STATE"}},
		{"DEVICE_STATE: no id", decode(DecodeDeviceState, make([]byte, 13)), []string{"DEVICE_STATE"}},
		{"DEVICE_STATE: short", decode(DecodeDeviceState, append(body(1, 'd'), make([]byte, 11)...)), []string{"DEVICE_STATE", "past the end"}},
		{"DEVICE_STATE: by multi, with data", decode(DecodeDeviceState, DeviceState{ID: "gpu0", Flags: StateByMulti, Data: body(1)}.Append(nil)[HeaderSize:]), []string{"DEVICE_STATE", `"gpu0"`, "1 bytes"}},
		{"DEVICE_STATE: by multi, and the last", decode(DecodeDeviceState, DeviceState{ID: "gpu0", Flags: StateByMulti | StateConfig}.Append(nil)[HeaderSize:]), []string{"DEVICE_STATE", `"gpu0"`, "0x3"}},
		{"DEVICE_STATE: too many packets", decode(DecodeDeviceState, DeviceState{ID: "gpu0", Index: MaxParts}.Append(nil)[HeaderSize:]), []string{"DEVICE_STATE", `"gpu0"`, "65536"}},
		{"DEVICE_STATE: flags", decode(DecodeDeviceState, DeviceState{ID: "serial0", Flags: 6}.Append(nil)[HeaderSize:]), []string{"DEVICE_STATE", `"serial0"`, "0x6"}},

		{"CHECKSUMS: none", decode(DecodeChecksums, make([]byte, 10)), []string{"CHECKSUMS", "10 bytes"}},
		{"CHECKSUMS: half a sum", decode(DecodeChecksums, make([]byte, 16)), []string{"CHECKSUMS", "16 bytes"}},
		{"COMPLETE: short", decode(DecodeComplete, make([]byte, 23)), []string{"COMPLETE", "23 bytes", "24"}},

		{"hello: another protocol", hello(func(b []byte) { copy(b, "GET / HT") }), []string{"hello", "GET / HT", "microvm"}},
		{"hello: versions upside down", hello(func(b []byte) { b[9] = 3 }), []string{"hello", "versions 3 to 1"}},
		{"hello: channels", hello(func(b []byte) { b[31] = 17 }), []string{"hello", "17 multi channels", "at most 16"}},
		{"hello: resume 2", hello(func(b []byte) { b[30] = 2 }), []string{"hello", "resume byte is 2"}},
		{"welcome: another protocol", welcome([]byte("HTTP/1.1 200")), []string{"answer to hello", "HTTP/1.1", "no microvm"}},
		{"welcome: text too long", welcome(appendHeader(magic[:], 0, 1025, 0)), []string{"answer to hello", "1025 bytes", "1024"}},

		{"return path: unknown type", returnErr(99, 0), []string{"type 99", "no such message"}},
		{"PAGE_SIZES: half a size", decode(DecodePageSizes, make([]byte, 12)), []string{"PAGE_SIZES", "12 bytes"}},
		{"RECV_BITMAP: empty", decode(DecodeRecvBitmap, nil), []string{"RECV_BITMAP", "past the end"}},
		{"RECV_BITMAP: no name", decode(DecodeRecvBitmap, make([]byte, 10)), []string{"RECV_BITMAP"}},
		{"RECV_BITMAP: no bitmap", decode(DecodeRecvBitmap, append(body(1, 'r'), make([]byte, 8)...)), []string{"RECV_BITMAP"}},
		{"RECV_BITMAP: from the middle of a byte", decode(DecodeRecvBitmap, append(body(1, 'r'), 0, 0, 0, 0, 0, 0, 0, 9, 1)), []string{"RECV_BITMAP", "page 9"}},
		{"RECV_BITMAP: too many pages", decode(DecodeRecvBitmap, append(body(1, 'r'), make([]byte, 8+MaxBitmapPages/8+1)...)), []string{"RECV_BITMAP", "32769 bytes"}},
		{"REQ_PAGES: short body", decode(DecodeReqPages, make([]byte, 15)), []string{"REQ_PAGES", "15 bytes"}},
		{"REQ_PAGES: no pages", decode(DecodeReqPages, reqPages(0, 0)), []string{"REQ_PAGES", "length 0x0"}},
		{"REQ_PAGES: odd start", decode(DecodeReqPages, reqPages(17, 4096)), []string{"REQ_PAGES", "start 0x11"}},
		{"REQ_PAGES: odd length", decode(DecodeReqPages, reqPages(0, 4098)), []string{"REQ_PAGES", "length 0x1002"}},
		{"REQ_PAGES: past 64 bits", decode(DecodeReqPages, reqPages(1<<64-4096, 8192)), []string{"REQ_PAGES", "64 bits"}},
		{"REQ_PAGES: name missing", decode(DecodeReqPages, reqPages(0, 4097)), []string{"REQ_PAGES", "name"}},
		{"REQ_PAGES: empty name", decode(DecodeReqPages, reqPages(0, 4097, 0)), []string{"REQ_PAGES", "name"}},
		{"REQ_PAGES: name past the end", decode(DecodeReqPages, reqPages(0, 4097, 4, 'r')), []string{"REQ_PAGES", "name"}},
		{"REQ_PAGES: bytes after the name", decode(DecodeReqPages, reqPages(0, 4097, 1, 'r', 's')), []string{"REQ_PAGES", "1 bytes too many"}},
		{"REQ_PAGES: bytes instead of a name", decode(DecodeReqPages, reqPages(0, 4096, 1, 'r')), []string{"REQ_PAGES", "2 bytes too many"}},
	}
	for typ := TypeOpenReturnPath; typ <= TypeEnd; typ++ {
		limit, _ := typ.MaxBody()
		cases = append(cases, refusal{"header: too long a " + typ.String(), headerErr(typ, limit+1),
			[]string{typ.String(), fmt.Sprint(limit + 1), fmt.Sprint(limit)}})
	}
	for typ := ReturnShut; typ <= ReturnPageSizes; typ++ {
		bound := returns[typ]
		cases = append(cases, refusal{"return path: too short a " + bound.name, returnErr(typ, int(bound.min)-1), []string{bound.name, fmt.Sprint(bound.min)}})
		if bound.max < MaxReturnBody {
			cases = append(cases, refusal{"return path: too long a " + bound.name, returnErr(typ, int(bound.max)+1), []string{bound.name, fmt.Sprint(bound.max)}})
		}
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			err := c.err()
			var broken *Error
			if !errors.As(err, &broken) {
				t.Fatalf("error %v, want an *Error", err)
			}
			for _, w := range append(c.want, "migration stream") {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("error %q does not say %q", err, w)
				}
			}
		})
	}
}

func config1(name string, size, pageSize uint64) []byte {
	return fmt.Appendf(nil, `{"blocks":[{"name":%q,"size":%d,"page_size":%d}]}`, name, size, pageSize)
}

func configOf(blocks int) []byte {
	var b []string
	for i := range blocks {
		b = append(b, fmt.Sprintf(`{"name":"ram%d","size":4096,"page_size":4096}`, i))
	}
	return []byte(`{"blocks":[` + strings.Join(b, ",") + `]}`)
}

// A stream that ends in the middle of a message is broken; only one that ends
// between two messages has ended.
func TestAStreamThatEndsInsideAMessageIsNoCleanEnd(t *testing.T) {
	readers := map[string]struct {
		message []byte
		read    func(io.Reader) error
	}{
		"hello":   {Hello{MinVersion: 1, MaxVersion: 1}.Append(nil), func(r io.Reader) error { _, err := ReadHello(r); return err }},
		"welcome": {Welcome{Refusal: "no"}.Append(nil), func(r io.Reader) error { _, err := ReadWelcome(r); return err }},
		"forward": {Ping(1), func(r io.Reader) error {
			h, err := ReadHeader(r)
			if err == nil {
				_, err = ReadBody(r, h)
			}
			return err
		}},
		"return": {AppendPong(nil, 1), func(r io.Reader) error { _, _, err := ReadReturn(r, make([]byte, MaxReturnBody)); return err }},
	}
	for name, c := range readers {
		for n := 1; n < len(c.message); n++ {
			if err := c.read(bytes.NewReader(c.message[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%s cut after %d of %d bytes: %v, want %v", name, n, len(c.message), err, io.ErrUnexpectedEOF)
			}
		}
	}
	if _, err := ReadHeader(bytes.NewReader(nil)); err != io.EOF {
		t.Errorf("forward stream with nothing more: %v, want io.EOF", err)
	}
	if _, _, err := ReadReturn(bytes.NewReader(nil), make([]byte, MaxReturnBody)); err != io.EOF {
		t.Errorf("return path with nothing more: %v, want io.EOF", err)
	}
}
