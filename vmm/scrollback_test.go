package vmm

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// What is kept is the last of what was printed, no more than 64 KiB, all of it
// if it was less, and never without the end.
func TestScrollbackIsTheLastOfWhatWasPrinted(t *testing.T) {
	for _, size := range []int{80, 777, 4096, scrollSize, scrollSize + 1, 3*scrollSize + 7} {
		var s scrollback
		var all []byte
		for n := 0; len(all) < 4*scrollSize; n++ {
			p := []byte(strings.Repeat(fmt.Sprintf("line %d\r\n", n), size/8+1)[:size])
			all = append(all, p...)
			s.add(p)
			got := s.last()
			if len(all) <= scrollSize && !bytes.Equal(got, all) {
				t.Fatalf("writes of %d: %d bytes are kept of the first %d", size, len(got), len(all))
			}
			if len(got) > scrollSize || !bytes.HasSuffix(all, got) || len(all) > scrollSize && len(got) < scrollSize-len("line 1000000\r\n") {
				t.Fatalf("writes of %d: %d bytes are kept of %d, want the last %d", size, len(got), len(all), scrollSize)
			}
		}
		if cap(s.buf) > 4*scrollSize {
			t.Errorf("writes of %d: %d bytes of memory", size, cap(s.buf))
		}
	}
}

// A terminal that begins with it shows no half of a letter or of a sequence,
// wherever the cut falls.
func TestScrollbackBeginsWhereATerminalCan(t *testing.T) {
	for _, c := range []struct {
		name, piece string
		starts      []string // with one of these it may begin
	}{
		{"lines of letters of three bytes", "日本語テキスト\r\n", []string{"日"}},
		{"letters without an end", "日本語", []string{"日", "本", "語"}},
		{"colours", "\x1b[1;31mred\x1b[0m ", []string{"\x1b[1", "\x1b[0"}},
		{"a title", "\x1b]0;the title\x1b\\ text", []string{"\x1b]", "\x1b\\"}},
	} {
		for shift := range len(c.piece) {
			var s scrollback
			s.add(bytes.Repeat([]byte(c.piece), scrollSize/len(c.piece)+2))
			s.add([]byte(strings.Repeat("x", shift)))
			got := string(s.last())
			if !utf8.ValidString(got) || !slices.ContainsFunc(c.starts, func(start string) bool { return strings.HasPrefix(got, start) }) {
				t.Errorf("%s, %d more: it begins with %q", c.name, shift, got[:20])
			}
			if len(got) > scrollSize || len(got) < scrollSize-len(c.piece) {
				t.Errorf("%s, %d more: %d bytes", c.name, shift, len(got))
			}
		}
	}
}

func TestScrollbackDoesNotAllocate(t *testing.T) {
	var s scrollback
	line := []byte(strings.Repeat("x", 79) + "\n")
	for range 4 * scrollSize / len(line) {
		s.add(line)
	}
	if n := testing.AllocsPerRun(2*scrollSize/len(line), func() { s.add(line) }); n > 0 {
		t.Errorf("%v allocations a write", n)
	}
}
