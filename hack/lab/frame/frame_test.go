package frame

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

func TestFramesArriveAsSent(t *testing.T) {
	var wire bytes.Buffer
	w := NewWriter(&wire)
	long := bytes.Repeat([]byte("0123456789abcdef"), 3*MaxPayload/16)
	if _, err := w.Stream(Stdout).Write(long); err != nil {
		t.Fatal(err)
	}
	if err := w.SendUint32(Exit, 137); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for {
		kind, payload, err := Read(&wire)
		if err != nil {
			t.Fatal(err)
		}
		if kind == Stdout {
			got = append(got, payload...)
			continue
		}
		if v, err := Uint32(payload); kind != Exit || v != 137 || err != nil {
			t.Fatalf("last frame: kind %d value %d error %v, want Exit 137", kind, v, err)
		}
		break
	}
	if !bytes.Equal(got, long) {
		t.Fatalf("%d bytes came out, %d went in, or they differ", len(got), len(long))
	}
	if _, _, err := Read(&wire); err != io.EOF {
		t.Fatalf("after the last frame: %v, want io.EOF", err)
	}
}

func TestBrokenFramesAreRefused(t *testing.T) {
	for name, wire := range map[string]string{
		"oversized": "\x02\xff\xff\xff\xff",
		"cut short": "\x02\x04\x00\x00\x00ab",
	} {
		if _, _, err := Read(strings.NewReader(wire)); err == nil || err == io.EOF {
			t.Errorf("%s: error %v, want a refusal", name, err)
		}
	}
	if _, err := Uint32([]byte{1, 2}); err == nil {
		t.Error("a 2-byte exit status was accepted")
	}
}
