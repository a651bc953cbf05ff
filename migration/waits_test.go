package migration

import (
	"slices"
	"testing"
	"time"
)

// A step of a story about who waited for what: times in milliseconds.
type waitStep struct {
	at     int
	add    *waitFor
	placed *[2]uint64 // first page, number of pages
	vcpus  []int      // thread ids become known
}

type waitFor struct {
	page uint64
	tid  int
}

const (
	cpu0, cpu1 = 100, 101 // thread ids of two vCPUs
	kernel     = 999      // a thread that is nobody's
	aDevice    = 0
)

func waiting(at int, page uint64, tid int) waitStep {
	return waitStep{at: at, add: &waitFor{page, tid}}
}
func arrives(at int, first, n uint64) waitStep { return waitStep{at: at, placed: &[2]uint64{first, n}} }
func known(at int) waitStep                    { return waitStep{at: at, vcpus: []int{cpu0, cpu1}} }

func TestBlocktime(t *testing.T) {
	cases := []struct {
		name   string
		steps  []waitStep
		all    int   // ms in which every vCPU waited
		vcpu   []int // ms that each waited
		device int
		count  uint64
	}{
		{"one vCPU waits, the other runs", []waitStep{
			known(0), waiting(10, 1, cpu0), arrives(15, 1, 1),
		}, 0, []int{5, 0}, 0, 1},
		{"one after the other", []waitStep{
			known(0), waiting(10, 1, cpu0), arrives(15, 1, 1), waiting(15, 2, cpu1), arrives(18, 2, 1),
		}, 0, []int{5, 3}, 0, 2},
		{"overlapping: both stand still from 12 to 15", []waitStep{
			known(0), waiting(10, 1, cpu0), waiting(12, 2, cpu1), arrives(15, 1, 1), arrives(20, 2, 1),
		}, 3, []int{5, 8}, 0, 2},
		{"one inside the other, twice", []waitStep{
			known(0), waiting(10, 1, cpu0),
			waiting(12, 2, cpu1), arrives(14, 2, 1),
			waiting(17, 3, cpu1), arrives(18, 3, 1),
			arrives(20, 1, 1),
		}, 3, []int{10, 3}, 0, 3},
		{"both for the same page", []waitStep{
			known(0), waiting(10, 7, cpu0), waiting(11, 7, cpu1), arrives(20, 7, 1),
		}, 9, []int{10, 9}, 0, 2},
		{"a run of pages ends the waits inside it only", []waitStep{
			known(0), waiting(10, 7, cpu0), waiting(10, 9, cpu1), arrives(12, 4, 5), arrives(20, 9, 1),
		}, 2, []int{2, 10}, 0, 2},
		{"thread known only while it waits", []waitStep{
			waiting(10, 1, cpu0), waiting(12, 2, cpu1), known(13), arrives(15, 1, 1), arrives(16, 2, 1),
		}, 3, []int{5, 4}, 0, 2},
		{"thread known only after it waited: the fault counts, the time is nobody's", []waitStep{
			waiting(10, 1, cpu0), arrives(12, 1, 1), known(13),
		}, 0, []int{0, 0}, 0, 1},
		{"devices: time in which at least one waits", []waitStep{
			known(0), waiting(10, 1, aDevice), waiting(12, 2, aDevice), arrives(15, 1, 1), arrives(20, 2, 1),
			waiting(30, 3, aDevice), arrives(31, 3, 1),
		}, 0, []int{0, 0}, 11, 3},
		{"a thread of the kernel is no vCPU and no device", []waitStep{
			known(0), waiting(10, 1, kernel), waiting(10, 2, cpu0), arrives(20, 1, 2),
		}, 0, []int{10, 0}, 0, 2},
		{"a vCPU faults again on the page it waits for, woken by chance", []waitStep{
			known(0), waiting(10, 1, cpu0), waiting(14, 1, cpu0), waiting(14, 2, cpu1), arrives(20, 1, 2),
		}, 6, []int{10, 6}, 0, 3},
		{"who places a page looks at the clock, and is held up until others wait", []waitStep{
			known(0), waiting(10, 1, cpu0), waiting(13, 2, cpu1), arrives(11, 1, 1), arrives(20, 2, 1),
		}, 0, []int{1, 7}, 0, 2},
		{"so that a page is placed before it is waited for", []waitStep{
			known(0), waiting(13, 1, cpu0), arrives(11, 1, 1), waiting(14, 1, aDevice), arrives(12, 1, 1),
		}, 0, []int{0, 0}, 0, 2},
		{"a page that nobody waits for", []waitStep{
			known(0), waiting(10, 1, cpu0), arrives(11, 2, 100), arrives(12, 0, 1), arrives(20, 1, 1),
		}, 0, []int{10, 0}, 0, 1},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			start := time.Now()
			w := newWaits()
			for _, s := range c.steps {
				now := start.Add(time.Duration(s.at) * time.Millisecond)
				switch {
				case s.add != nil:
					w.add(0, s.add.page, s.add.tid, now)
				case s.placed != nil:
					w.placed(0, s.placed[0], s.placed[1], now, now)
				default:
					w.setVCPUs(s.vcpus, now)
				}
			}
			var got stats
			w.report(&got)
			vcpu := make([]int, len(got.VCPUBlocktimeNS))
			for i, ns := range got.VCPUBlocktimeNS {
				vcpu[i] = int(time.Duration(ns).Milliseconds())
			}
			if all := int(time.Duration(got.BlocktimeNS).Milliseconds()); all != c.all {
				t.Errorf("all vCPUs stood still for %d ms, want %d", all, c.all)
			}
			if !slices.Equal(vcpu, c.vcpu) {
				t.Errorf("vCPUs waited for %v ms, want %v", vcpu, c.vcpu)
			}
			if d := int(time.Duration(got.DeviceBlocktimeNS).Milliseconds()); d != c.device {
				t.Errorf("devices waited for %d ms, want %d", d, c.device)
			}
			if got.Faults.Count != c.count {
				t.Errorf("%d waits, want %d", got.Faults.Count, c.count)
			}
			w.pending(func(_ int, page uint64) { t.Errorf("page %d is still waited for", page) })
		})
	}
}

// A page that is pushed may be in hand before the request for it is written: of that
// fault, only what came after the request is part of the reply.
func TestPhasesOfAPageThatIsInHandBeforeItIsAskedFor(t *testing.T) {
	w := newWaits()
	at := func(ms int) time.Time { return time.Unix(0, 0).Add(time.Duration(ms) * time.Millisecond) }
	w.add(0, 1, cpu0, at(0))
	w.asked([]pageRequest{{0, 1}}, at(0), at(30))
	w.placed(0, 1, 1, at(10), at(40))
	for name, h := range map[string]*histogram{"travel": &w.travel, "place": &w.place, "reply": &w.reply} {
		want := map[string]time.Duration{"travel": 0, "place": 10 * time.Millisecond, "reply": 10 * time.Millisecond}[name]
		if got := time.Duration(h.total.Load()); got != want {
			t.Errorf("%s took %v, want %v", name, got, want)
		}
	}
}

func TestPendingListsWhatIsWaitedForByBlock(t *testing.T) {
	w := newWaits()
	now := time.Now()
	w.add(0, 5, cpu0, now)
	w.add(1, 5, cpu1, now)
	w.placed(0, 5, 1, now, now)
	var got []pageRequest
	w.pending(func(block int, page uint64) { got = append(got, pageRequest{block, page}) })
	if want := []pageRequest{{1, 5}}; !slices.Equal(got, want) {
		t.Errorf("pending %v, want %v", got, want)
	}
}
