package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"microvm/devices/virtio"
	"microvm/vmm"
)

func TestStatsShowWhatWasDoneAndHowFast(t *testing.T) {
	at := func(n uint64) vmm.Stats {
		return vmm.Stats{
			Uptime: time.Duration(n) * 10 * time.Millisecond,
			VCPUs:  []vmm.VCPUStats{{PortIO: n, MMIO: 2 * n, Kicked: 3, Other: 0}},
			Devices: []vmm.DeviceInfo{{
				ID: "blk0",
				Counts: virtio.Counts{
					Requests: []virtio.RequestCounts{
						{Sort: "read", Requests: n, Bytes: n << 12, Errors: 1, Latency: []uint64{0, n / 2, 0, n - n/2, 0}},
						{Sort: "flush"},
					},
					Counters: map[string]uint64{"io_uring": n / 2},
					Gauges:   map[string]uint64{"size": 4096},
				},
				Queues: []virtio.QueueStats{{Kicks: n, Chains: n, Interrupts: n / 4}},
			}},
		}
	}
	first, second := at(100), at(300)
	var text strings.Builder
	if err := printStats(&text, second, nil); err != nil {
		t.Fatal(err)
	}
	compare(t, text.String(), `
DEVICE            REQUESTS  BYTES    ERRORS  P50   P99   MAX
blk0    read      300       1.2 MiB  1       <2µs  <8µs  <8µs
blk0    flush     0         0 B      0       -     -     -
blk0    io_uring  150
blk0    size      4096

DEVICE  QUEUE  KICKS  CHAINS  INTERRUPTS
blk0    0      300    300     75

VCPU    PORT I/O EXITS  MMIO EXITS  KICKS  OTHERS
0       300             600         3      0
`)
	text.Reset()
	if err := printStats(&text, second, &first); err != nil { // 2 s later
		t.Fatal(err)
	}
	compare(t, text.String(), `
DEVICE            REQUESTS  /S   BYTES    /S       ERRORS  P50   P99   MAX
blk0    read      300       100  1.2 MiB  400 KiB  1       <2µs  <8µs  <8µs
blk0    flush     0         0    0 B      0 B      0       -     -     -
blk0    io_uring  150       50
blk0    size      4096

DEVICE  QUEUE  KICKS  /S   CHAINS  /S   INTERRUPTS  /S
blk0    0      300    100  300     100  75          25

VCPU    PORT I/O EXITS  /S   MMIO EXITS  /S   KICKS  /S  OTHERS  /S
0       300             100  600         200  3      0   0       0
`)
}

// compare compares texts but for spaces at the ends of lines.
func compare(t *testing.T, got, want string) {
	t.Helper()
	var lines []string
	for line := range strings.Lines(got) {
		lines = append(lines, strings.TrimRight(line, " \n"))
	}
	if text := strings.Join(lines, "\n"); text != strings.TrimSpace(want) {
		t.Errorf("got\n%s\nwant%s", text, want)
	}
}

// TestStatsOfAVMThatRuns: of what its vCPUs did and its disk has, and again as
// long as it lives.
func TestStatsOfAVMThatRuns(t *testing.T) {
	h := newHost(t)
	vm := h.boot("a", "beat=50", "--disk", newImage(t))
	text := h.must(0, "stats", "a").stdout
	for _, want := range []string{"blk0    size", "1048576", "PORT I/O EXITS"} {
		if !strings.Contains(text, want) {
			t.Errorf("it lacks %q:\n%s", want, text)
		}
	}
	watch := h.start("stats", "a", "--watch", "--format", "json")
	watch.await("three lines", func(text string) bool { return strings.Count(text, "\n") >= 3 })
	vm.kill()
	watch.wait(0)
	var all []vmm.Stats
	for d := json.NewDecoder(strings.NewReader(watch.stdout.String())); d.More(); {
		var s vmm.Stats
		if err := d.Decode(&s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	for i, s := range all {
		if len(s.VCPUs) != 2 || len(s.Devices) != 1 || s.Devices[0].ID != "blk0" {
			t.Fatalf("%+v", s)
		}
		if i > 0 && (s.Uptime <= all[i-1].Uptime || s.VCPUs[0].PortIO <= all[i-1].VCPUs[0].PortIO) {
			t.Errorf("%+v after %+v", s, all[i-1])
		}
	}
	h.must(exitNoVM, "stats", "a")
}
