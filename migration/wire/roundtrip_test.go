package wire

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// frame reads a forward message the way a channel does, and checks its type
// and that nothing is left.
func frame(t *testing.T, want Type, message []byte) []byte {
	t.Helper()
	r := bytes.NewReader(message)
	h, err := ReadHeader(r)
	if err != nil {
		t.Fatal(err)
	}
	if h.Type != want {
		t.Fatalf("type %v, want %v", h.Type, want)
	}
	body, err := ReadBody(r, h)
	if err != nil {
		t.Fatal(err)
	}
	if r.Len() != 0 {
		t.Fatalf("%d bytes after the message", r.Len())
	}
	return body
}

// returned does the same for a message of the return path.
func returned(t *testing.T, want ReturnType, message []byte) []byte {
	t.Helper()
	r := bytes.NewReader(message)
	got, body, err := ReadReturn(r, make([]byte, MaxReturnBody))
	if err != nil {
		t.Fatal(err)
	}
	if got != want || r.Len() != 0 {
		t.Fatalf("%v with %d bytes after it, want %v and none", got, r.Len(), want)
	}
	return body
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

var longName = strings.Repeat("n", maxName)

func TestForwardMessagesComeBackAsTheyWere(t *testing.T) {
	t.Run("OPEN_RETURN_PATH", func(t *testing.T) {
		equal(t, frame(t, TypeOpenReturnPath, Message(TypeOpenReturnPath, nil)), []byte{})
	})
	for _, seq := range []uint32{0, 1, 1<<32 - 1} {
		got, err := DecodePing(frame(t, TypePing, Ping(seq)))
		if err != nil || got != seq {
			t.Errorf("PING %d: %d, %v", seq, got, err)
		}
		if got, err := DecodeSync(frame(t, TypeSync, Sync(seq))); err != nil || got != seq {
			t.Errorf("SYNC %d: %d, %v", seq, got, err)
		}
	}
	for _, want := range []Advise{
		{TargetPageSize: PageSize},
		{PageSize, []uint64{4096, 2 << 20, 1<<64 - 1}},
		{1, make([]uint64, MaxBlocks)},
	} {
		got, err := DecodeAdvise(frame(t, TypeAdvise, want.Append(nil)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, want := range []Discard{
		{Block: "ram"},
		{longName, []Range{{0, 1}, {1<<64 - 1, 1<<64 - 1}}},
		{"ram", make([]Range, MaxDiscardRanges)},
	} {
		got, err := DecodeDiscard(frame(t, TypeDiscard, want.Append(nil)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, want := range []DeviceState{
		{ID: "kvm", Version: 1, Data: []byte{}},
		{ID: "kvm", Version: 1, Flags: StateByMulti, Data: []byte{}},
		{ID: "gpu0", Version: 1, Index: MaxParts - 1, Flags: StateConfig, Data: []byte("last")},
		{ID: longName, Version: 1<<32 - 1, Index: 7, Data: []byte("state")},
	} {
		got, err := DecodeDeviceState(frame(t, TypeDeviceState, want.Append(nil)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, want := range []Checksums{
		{Block: 0, First: 0, Sums: []uint32{1}},
		{Block: 65535, First: 1<<64 - 1, Sums: make([]uint32, MaxChecksums)},
	} {
		got, err := DecodeChecksums(frame(t, TypeChecksums, want.Append(nil)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, why := range []string{"", "disk full", strings.Repeat("x", MaxText)} {
		equal(t, string(frame(t, TypeCancel, Cancel(why))), why)
	}
	equal(t, frame(t, TypeResume, Message(TypeResume, nil)), []byte{})
	want := Complete{DataPages: 1, ZeroPages: 1<<64 - 1, Checksums: 3}
	got, err := DecodeComplete(frame(t, TypeComplete, want.Append(nil)))
	if err != nil {
		t.Error(err)
	}
	equal(t, got, want)
}

func TestConfigComesBackAsItWas(t *testing.T) {
	want := Config{
		VM:      "debian",
		Blocks:  []Block{{"ram", 1 << 30, 4096}, {longName, 2 << 20, 2 << 20}},
		Devices: []Device{{"kvm", 1, false}, {"cpu0", 1<<32 - 1, true}},
		Verify:  true,
		Machine: json.RawMessage(`{"cpus":1}`),
	}
	body, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeConfig(frame(t, TypeConfig, Message(TypeConfig, body)))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, got, want)
}

func TestRAMComesBackAsItWas(t *testing.T) {
	for _, want := range []RAM{
		{Block: 0, Kind: KindData, Count: 1, First: 0},
		{Block: 63, Kind: KindData, Count: MaxRunPages, First: 1<<64 - 1},
		{Block: 65535, Kind: KindZero, Count: 1<<32 - 1, First: 1 << 40},
		{Block: 1, Kind: KindZero, Count: 3, Summed: true, Sum: 1<<32 - 1},
		{Block: 2, Kind: KindS2, Count: 1, Compressed: 1},
		{Block: 3, Kind: KindZstd, Count: MaxRunPages, First: 9, Compressed: MaxRunPages*PageSize - 1, Summed: true, Sum: 7},
	} {
		b := AppendRAM(nil, want)
		if len(b) != RAMHeaderSize {
			t.Fatalf("%d bytes, want %d", len(b), RAMHeaderSize)
		}
		h, err := DecodeHeader([HeaderSize]byte(b))
		if err != nil || h.Type != TypeRAM {
			t.Fatalf("header %+v, %v", h, err)
		}
		payload := map[Kind]uint32{KindData: want.Count * PageSize, KindZero: 0}
		if n := h.Length - RAMFixedSize; n != payload[want.Kind]+want.Compressed {
			t.Errorf("%+v announces a payload of %d bytes", want, n)
		}
		got, err := DecodeRAM([RAMFixedSize]byte(b[HeaderSize:]), h)
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
}

func TestReturnMessagesComeBackAsTheyWere(t *testing.T) {
	equal(t, DecodeUint32(returned(t, ReturnShut, AppendShut(nil, 3))), uint32(3))
	equal(t, DecodeUint32(returned(t, ReturnPong, AppendPong(nil, 1<<32-1))), uint32(1<<32-1))
	equal(t, DecodeLoaded(returned(t, ReturnLoaded, AppendLoaded(nil, 1<<63))), uint64(1<<63))
	running := Running{Time: 1 << 60, ResumeNanos: 17}
	equal(t, DecodeRunning(returned(t, ReturnRunning, AppendRunning(nil, running))), running)
	for _, want := range []Failed{{FailureRefused, "no room"}, {FailureOther, ""}, {1<<32 - 1, strings.Repeat("x", MaxText)}} {
		equal(t, DecodeFailed(returned(t, ReturnFailed, AppendFailed(nil, want))), want)
	}
	stats := []byte(`{"pages_left":1}`)
	equal(t, returned(t, ReturnStats, AppendStats(nil, stats)), stats)
	equal(t, DecodeUint32(returned(t, ReturnResumeAck, AppendResumeAck(nil, ResumeLoaded))), uint32(ResumeLoaded))
	for _, want := range [][]uint64{{4096}, {2 << 20, 4096, 1<<64 - 1}} {
		got, err := DecodePageSizes(returned(t, ReturnPageSizes, AppendPageSizes(nil, want)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, want := range []RecvBitmap{
		{Block: []byte("ram"), First: 0, Bitmap: []byte{1}},
		{Block: []byte(longName), First: 1<<64 - 8, Bitmap: make([]byte, MaxBitmapPages/8)},
	} {
		got, err := DecodeRecvBitmap(returned(t, ReturnRecvBitmap, AppendRecvBitmap(nil, string(want.Block), want.First, want.Bitmap)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
	for _, want := range []ReqPages{
		{Start: 0, Len: PageSize},
		{Block: []byte("ram"), Start: 2 << 20, Len: 2 << 20},
		{Block: []byte(longName), Start: 1 << 62, Len: 1 << 62},
	} {
		got, err := DecodeReqPages(returned(t, ReturnReqPages, AppendReqPages(nil, string(want.Block), want.Start, want.Len)))
		if err != nil {
			t.Error(err)
		}
		equal(t, got, want)
	}
}

func TestHelloAndWelcomeComeBackAsTheyWere(t *testing.T) {
	for _, want := range []Hello{
		{MinVersion: 1, MaxVersion: 1, ID: ID{1, 2, 15: 3}, Role: RoleMain},
		{MinVersion: 0, MaxVersion: 65535, Role: 200, Index: 255},
		{MinVersion: 1, MaxVersion: 1, Role: RoleUrgent, Resume: true},
		{MinVersion: 1, MaxVersion: 1, Role: RoleMulti, Index: 15, Multi: MaxMulti},
	} {
		r := bytes.NewReader(want.Append(nil))
		got, err := ReadHello(r)
		if err != nil || r.Len() != 0 {
			t.Errorf("%v, %d bytes left", err, r.Len())
		}
		equal(t, got, want)
	}
	for _, want := range []Welcome{{Version: 1}, {Refusal: "busy"}, {Refusal: strings.Repeat("x", MaxText)}} {
		r := bytes.NewReader(want.Append(nil))
		got, err := ReadWelcome(r)
		if err != nil || r.Len() != 0 {
			t.Errorf("%v, %d bytes left", err, r.Len())
		}
		equal(t, got, want)
	}
}

func TestATextTooLongIsCutNotTheMessage(t *testing.T) {
	long := strings.Repeat("x", 1<<16)
	if w, err := ReadWelcome(bytes.NewReader(Welcome{Refusal: long}.Append(nil))); err != nil || len(w.Refusal) != MaxText {
		t.Errorf("welcome: %d bytes of text, %v", len(w.Refusal), err)
	}
	if f := DecodeFailed(returned(t, ReturnFailed, AppendFailed(nil, Failed{FailureOther, long}))); len(f.Text) != MaxText {
		t.Errorf("FAILED: %d bytes of text", len(f.Text))
	}
	if got := frame(t, TypeCancel, Cancel(long)); len(got) != MaxText {
		t.Errorf("CANCEL: %d bytes of text", len(got))
	}
	if b := AppendStats([]byte("before"), []byte(long)); string(b) != "before" {
		t.Errorf("STATS too long for a message added %d bytes", len(b)-len("before"))
	}
}

func TestEveryTypeHasANameAndABound(t *testing.T) {
	for typ := TypeOpenReturnPath; typ <= TypeEnd; typ++ {
		if _, ok := typ.MaxBody(); !ok || strings.Contains(typ.String(), "type") {
			t.Errorf("type %d: name %q, known %v", typ, typ, ok)
		}
	}
	for _, typ := range []Type{0, TypeEnd + 100, 65535} {
		if _, ok := typ.MaxBody(); ok {
			t.Errorf("type %d has a bound", typ)
		}
	}
	for typ := ReturnShut; typ <= ReturnPageSizes; typ++ {
		if strings.Contains(typ.String(), "type") {
			t.Errorf("return type %d has no name", typ)
		}
	}
	for role, want := range map[Role]string{RoleMain: "main", RoleUrgent: "urgent", 9: "role 9"} {
		if role.String() != want {
			t.Errorf("role %d is called %q", role, role)
		}
	}
}
