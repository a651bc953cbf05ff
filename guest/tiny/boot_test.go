package tiny_test

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

func TestEachKindOfWorkEndsWithNothingBad(t *testing.T) {
	for _, test := range []struct {
		cpus    int
		cmdline string
		idle    bool
	}{
		{1, "", true},
		{4, "", true},
		{1, "fill=1 work=touch order=seq", false},
		{4, "fill=1 work=touch order=rand", false},
		{1, "fill=1 work=write order=rand", false},
		{4, "fill=1 work=write order=seq span=8", false},
		{2, "fill=1 work=write order=down mem=8M", false},
		{3, "fill=1 work=write order=stride mem=8M", false},
		{2, "fill=1 work=touch order=stride mem=1M", false},
		{2, "work=write order=rand mem=40M", false}, // no fill: unwritten pages are in no known state
		{2, "fill=full work=write order=rand mem=1M rate=500", false},
	} {
		t.Run(fmt.Sprintf("%d CPUs %s", test.cpus, test.cmdline), func(t *testing.T) {
			m := boot(t, test.cpus, test.cmdline+" check=1 sweep=1 beat=100 stop=3")
			if banner := m.await("tiny: cpus="); !strings.Contains(banner, fmt.Sprintf("cpus=%d ", test.cpus)) {
				t.Errorf("banner %q, want %d CPUs", banner, test.cpus)
			}
			m.await("ready")
			var n, pages, bad, swept uint64
			for want := range uint64(3) {
				scan(t, m.await("beat"), "beat %d pages %d bad %d", &n, &pages, &bad)
				if n != want+1 || bad != 0 {
					t.Errorf("beat %d with %d bad pages, want beat %d with none", n, bad, want+1)
				}
			}
			if idle := pages == 0; idle != test.idle {
				t.Errorf("%d pages visited, idle=%v", pages, test.idle)
			}
			scan(t, m.await("sweep"), "sweep pages %d bad %d", &swept, &bad)
			if swept == 0 || bad != 0 {
				t.Errorf("%d pages swept, %d bad: want some, and none", swept, bad)
			}
			m.await("end")
			m.awaitEnd("poweroff")
		})
	}
}

func TestTestRangeCoversRAMOnBothSidesOf4GiB(t *testing.T) {
	m := boot(t, 1, "fill=1 stop=1 beat=10")
	m.await("end")
	m.awaitEnd("poweroff")
	for _, gpa := range []uint64{lowRAM - 4096, highBase, highBase + highRAM - 4096} {
		b := make([]byte, 8)
		must(t, m.memory.ReadAt(b, gpa))
		if stamp := binary.LittleEndian.Uint64(b); stamp&0xffffffff != 1 || stamp>>32 == 0 {
			t.Errorf("page at %#x holds %#x, want a stamp", gpa, stamp)
		}
	}
}

func TestGuestFindsPagesThatAreLostStaleOrTorn(t *testing.T) {
	m := boot(t, 2, "mem=8 fill=full work=touch check=1 beat=10")
	m.await("ready")
	for _, test := range []struct {
		name   string
		page   uint64
		offset uint64
		word   uint64
		want   string
	}{
		{"stale", 100, 0, 100 << 32, "want 0000006400000001 got 0000006400000000"},
		{"elsewhere", 201, 0, 202<<32 | 1, "want 000000c900000001 got 000000ca00000001"},
		{"torn", 300, 4088, 0, "want fffffed3fffffffe got 0000000000000000"},
	} {
		gpa := m.find(test.page) + test.offset
		must(t, m.memory.WriteAt(binary.LittleEndian.AppendUint64(nil, test.word), gpa))
		page := fmt.Sprintf("BAD page %d ", test.page)
		want := fmt.Sprintf("%s%s at %016x", page, test.want, gpa)
		if got := m.await(page); got != want {
			t.Errorf("%s page: the guest says %q, want %q", test.name, got, want)
		}
		// Whole again, so that the next line is about the next page.
		good := test.page<<32 | 1
		if test.offset != 0 {
			good = ^good
		}
		must(t, m.memory.WriteAt(binary.LittleEndian.AppendUint64(nil, good), gpa))
	}
}

func TestSweepFindsAWrongByteInsideAPage(t *testing.T) {
	m := boot(t, 2, "mem=1 fill=full sweep=1 beat=10 stop=1")
	m.await("ready")
	gpa := m.find(77) + 1001
	b := make([]byte, 1)
	must(t, m.memory.ReadAt(b, gpa))
	b[0] ^= 0x10
	must(t, m.memory.WriteAt(b, gpa))
	m.await("beat")
	want := fmt.Sprintf("at %016x", gpa&^7)
	if got := m.await("BAD"); !strings.HasPrefix(got, "BAD page 77 ") || !strings.HasSuffix(got, want) {
		t.Errorf("the guest says %q, want page 77 %s", got, want)
	}
	if got := m.await("sweep"); !strings.HasSuffix(got, " bad 1") {
		t.Errorf("the guest says %q, want 1 bad", got)
	}
}

// find returns the GPA of a page of the test range that has been filled and not written since.
func (m *machine) find(page uint64) uint64 {
	m.t.Helper()
	want := binary.LittleEndian.AppendUint64(nil, page<<32|1)
	view, err := m.low.View(0, lowRAM)
	must(m.t, err)
	for gpa := uint64(1 << 20); gpa < lowRAM; gpa += 4096 {
		if string(view[gpa:gpa+8]) == string(want) {
			return gpa
		}
	}
	m.t.Fatalf("page %d is nowhere in RAM", page)
	return 0
}

func TestGuestEchoesWhatIsTyped(t *testing.T) {
	m := boot(t, 1, "beat=10")
	m.await("ready")
	for _, b := range []byte("hello there\r\nagain\n") {
		m.typed <- b
	}
	for _, want := range []string{"echo hello there", "echo again"} {
		if got := m.await("echo"); got != want {
			t.Errorf("the guest says %q, want %q", got, want)
		}
	}
}

func TestEachWayToEnd(t *testing.T) {
	for end, want := range map[string]string{
		"poweroff": "poweroff", "reboot": "reboot", "triple": "SHUTDOWN", "panic": "panic",
	} {
		t.Run(end, func(t *testing.T) {
			m := boot(t, 2, "beat=10 stop=1 end="+end)
			m.await("end")
			if end == "panic" {
				m.await("PANIC cpu 0 vector 6 ")
			}
			m.awaitEnd(want)
		})
	}
}

func TestUnknownParameterIsNamed(t *testing.T) {
	m := boot(t, 1, "wrok=write mem=4T rate=1234567890")
	for _, want := range []string{"wrok=write", "mem=4T", "rate=1234567890"} {
		m.await("tiny: ignored: " + want)
	}
	m.await("tiny: cpus=1 ")
}

func scan(t *testing.T, line, format string, into ...any) {
	t.Helper()
	if _, err := fmt.Sscanf(line, format, into...); err != nil {
		t.Fatalf("line %q: %v, want the form %q", line, err, format)
	}
}
