package console

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestFilter(t *testing.T) {
	for _, c := range []struct {
		name, typed, guest string
		help               int
		end                error
	}{
		{"plain", "ls\r", "ls\r", 0, nil},
		{"every byte but the prefix", "\x00\x02\x03\x1b\xff", "\x00\x02\x03\x1b\xff", 0, nil},
		{"leave", "ab\x01xcd", "ab", 0, ErrLeave},
		{"leave at once", "\x01x", "", 0, ErrLeave},
		{"send the prefix", "a\x01ab", "a\x01b", 0, nil},
		{"send the prefix, twice typed", "\x01\x01x", "\x01x", 0, nil},
		{"help", "a\x01h\x01hb", "ab", 2, nil},
		{"another key", "a\x01qb", "ab", 0, nil},
		{"prefix at the end", "a\x01", "a", 0, nil},
		{"keys without the prefix", "xah", "xah", 0, nil},
		{"prefix sent, then leave", "\x01a\x01x", "\x01", 0, ErrLeave},
	} {
		for _, slow := range []bool{false, true} {
			var r io.Reader = strings.NewReader(c.typed)
			if slow {
				r = iotest.OneByteReader(r) // the keys come one at a time
			}
			var help bytes.Buffer
			f := NewFilter(r, &help)
			got, err := io.ReadAll(f)
			if string(got) != c.guest || !errors.Is(err, c.end) {
				t.Errorf("%s: the guest gets %q, %v, want %q, %v", c.name, got, err, c.guest, c.end)
			}
			if want := strings.Repeat(Help, c.help); help.String() != want {
				t.Errorf("%s: help shows %q, want %q", c.name, help.String(), want)
			}
			if _, err := f.Read(make([]byte, 1)); c.end != nil && !errors.Is(err, c.end) {
				t.Errorf("%s: reading on gives %v, want %v", c.name, err, c.end)
			}
			if n, err := f.Read(nil); n != 0 || err != nil {
				t.Errorf("%s: reading nothing gives %d, %v", c.name, n, err)
			}
		}
	}
}

// TestFilterGivesDataBeforeTheError: what came with the error isn't lost.
func TestFilterGivesDataBeforeTheError(t *testing.T) {
	f := NewFilter(iotest.DataErrReader(strings.NewReader("abc")), io.Discard)
	p := make([]byte, 8)
	if n, err := f.Read(p); string(p[:n]) != "abc" || err != nil {
		t.Errorf("first read gives %q, %v", p[:n], err)
	}
	if _, err := f.Read(p); err != io.EOF {
		t.Errorf("second read gives %v, want EOF", err)
	}
}

// FuzzFilter: the guest gets the same however the keys are cut into reads.
func FuzzFilter(f *testing.F) {
	f.Add([]byte("ab\x01acd\x01h\x01x"))
	f.Fuzz(func(t *testing.T, typed []byte) {
		whole, err1 := io.ReadAll(NewFilter(bytes.NewReader(typed), io.Discard))
		bytewise, err2 := io.ReadAll(NewFilter(iotest.OneByteReader(bytes.NewReader(typed)), io.Discard))
		if !bytes.Equal(whole, bytewise) || err1 != err2 {
			t.Errorf("%q: %q, %v at once; %q, %v byte by byte", typed, whole, err1, bytewise, err2)
		}
	})
}
