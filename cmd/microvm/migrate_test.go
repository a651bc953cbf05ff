package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"microvm/migration"
)

// migrate moves a VM with --verify, and returns the report.
func (h *host) migrate(name, addr string) *migration.Report {
	h.t.Helper()
	r := h.must(0, "migrate", name, addr, "--postcopy", "--verify", "--report", "json")
	return readReport(h.t, r.stdout)
}

// readReport reads what --report json printed: one object and nothing else,
// with every field of the contract and no other.
func readReport(t *testing.T, text string) *migration.Report {
	t.Helper()
	checkFields(t, text)
	var report migration.Report
	in := json.NewDecoder(strings.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&report); err != nil {
		t.Fatalf("%v in the report:\n%s", err, text)
	}
	if err := in.Decode(&struct{}{}); err != io.EOF {
		t.Fatalf("more than one object:\n%s", text)
	}
	return &report
}

// reportFields are the fields of a report and of the objects in it. Programs
// read them: to take one away or to rename it breaks them.
var reportFields = map[string]string{
	"": "vm id mode result owner error downtime_ns downtime total_ns precopy_ns postcopy_ns precopy_passes switch throttle ram compression checksum faults " +
		"blocktime_ns vcpu_blocktime_ns device_blocktime_ns channels channel_bytes recoveries verified",
	"downtime": "pause_ns save_ns transfer_ns load_ns resume_ns",
	"throttle": "max_percent took_ns",
	"ram":      "bytes_total pages_total pages_zero pages_precopy pages_postcopy pages_requested pages_repeated pages_discarded bytes_wire runs_damaged",
	"faults":   "count requested async total_ns p50_ns p90_ns p99_ns max_ns histogram_log2_us phases",
}

func checkFields(t *testing.T, text string) {
	t.Helper()
	var top map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &top); err != nil {
		t.Fatalf("%v in the report:\n%s", err, text)
	}
	for object, want := range reportFields {
		fields := top
		if object != "" {
			fields = nil
			if err := json.Unmarshal(top[object], &fields); err != nil {
				t.Errorf("report: %s: %v", object, err)
				continue
			}
		}
		names := strings.Fields(want)
		for name := range fields {
			if !slices.Contains(names, name) {
				t.Errorf("report: %s %q is not in the contract", object, name)
			}
		}
		for _, name := range names {
			if _, ok := fields[name]; !ok {
				t.Errorf("report: %s %q is missing", object, name)
			}
		}
	}
}

// checkCompleted checks that the figures of a completed migration agree with
// one another.
func checkCompleted(t *testing.T, r *migration.Report, memory uint64, cpus int) {
	t.Helper()
	check := func(ok bool, what string) {
		t.Helper()
		if !ok {
			t.Errorf("report: %s: %+v", what, r)
		}
	}
	check(r.Result == migration.ResultCompleted && r.Owner == migration.OwnerDestination && r.Error == "", "completed")
	check(r.Verified != nil && *r.Verified, "verified")
	check(r.Mode == "postcopy" && len(r.ID) == 32 && r.Channels == 2+defaultConnections && r.Recoveries == 0, "what it was")
	d := r.Downtime
	parts := d.PauseNS + d.SaveNS + d.TransferNS + d.LoadNS + d.ResumeNS
	check(d.PauseNS > 0 && d.SaveNS > 0 && d.TransferNS > 0 && d.LoadNS > 0 && d.ResumeNS > 0, "every part of the downtime takes time")
	check(parts <= r.DowntimeNS, "the parts of the downtime are no more than the whole")
	check(r.PrecopyNS == 0 && r.DowntimeNS <= r.TotalNS && r.PostcopyNS <= r.TotalNS, "the phases are no longer than the whole")
	check(r.RAM.BytesTotal == memory && r.RAM.PagesTotal == memory/pageSize, "all of the memory")
	check(r.RAM.PagesZero+r.RAM.PagesPostcopy == r.RAM.PagesTotal, "each page once")
	check(r.Passes == 0 && r.RAM.PagesPrecopy == 0 && r.RAM.PagesDiscarded == 0, "no precopy")
	check(r.RAM.BytesWire > r.RAM.PagesPostcopy*pageSize, "pages take at least their size on the wire")
	f := r.Faults
	sum := uint64(0)
	for _, n := range f.Histogram {
		sum += n
	}
	check(f.Count > 0 && f.Requested > 0 && sum == f.Count, "the histogram has every fault")
	check(0 < f.P50NS && f.P50NS <= f.P90NS && f.P90NS <= f.P99NS && f.P99NS <= f.MaxNS, "the quantiles rise")
	p := f.Phases
	for _, q := range [][2]int64{
		{p.RequestP50NS, p.RequestP99NS}, {p.TravelP50NS, p.TravelP99NS},
		{p.PlaceP50NS, p.PlaceP99NS}, {p.ReplyP50NS, p.ReplyP99NS},
	} {
		check(0 < q[0] && q[0] <= q[1] && q[1] <= f.MaxNS, "the phases of a fault are parts of it")
	}
	check(0 < p.SourceP50NS && p.SourceP50NS <= p.SourceP99NS, "the source's part is measured there")
	check(p.TravelP50NS <= p.ReplyP50NS && p.TravelP99NS <= p.ReplyP99NS && p.PlaceP99NS <= p.ReplyP99NS, "the parts of a reply are no more than it")
	// A page of our own is touched every 50 ms.
	check(r.PostcopyNS < 1e9 || (0 < p.KernelP50NS && p.KernelP50NS <= p.KernelP99NS && 0 < p.WakeP50NS && p.WakeP50NS <= p.WakeP99NS),
		"how long the kernel takes is measured")
	check(f.Async <= f.Count, "asynchronous faults are faults")
	check(len(r.VCPUBlocktimeNS) == cpus, "each vCPU's waits")
	for _, ns := range r.VCPUBlocktimeNS {
		check(r.BlocktimeNS <= ns && ns <= r.TotalNS, "all vCPUs at once wait no longer than each")
	}
}

func TestABusyGuestMovesToAnotherProcessWithoutHarm(t *testing.T) {
	for _, c := range []struct {
		memory  string
		bytes   uint64
		network string
	}{
		{"256M", 256 << 20, "unix"},
		{"1G", 1 << 30, "tcp"},
	} {
		t.Run(c.memory+" over "+c.network, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy, "-m", c.memory)
			listen := "tcp:127.0.0.1:0"
			if c.network == "unix" {
				listen = "unix:" + filepath.Join(h.root, "in.sock")
			}
			dest := h.start("receive", "--name", "b", "--listen", listen)
			addr := dest.awaitLine(c.network + ":")
			source.goesOn(2)

			report := h.migrate("a", addr)
			checkCompleted(t, report, c.bytes, 2)
			if report.VM != "a" {
				t.Errorf("the report is about %q", report.VM)
			}
			source.wait(0)
			dest.goesOn(10)
			if got := h.state("a"); got != "" {
				t.Errorf("the VM is still at the source, %s", got)
			}
			if got := h.state("b"); got != "running" {
				t.Errorf("the VM is %q at the destination", got)
			}
			h.must(0, "stop", "b", "--force")
			dest.wait(0)
			checkScreen(t, screens(source, dest))
			if left := h.must(0, "ps", "-a", "-q"); left.stdout != "" {
				t.Errorf("state is left of %q", left.stdout)
			}
		})
	}
}

func TestAVMThatHasArrivedCanLeaveAgain(t *testing.T) {
	h := newHost(t)
	// The first name is free again.
	h.wander([]string{"a", "b", "c", "a"}, nil, func(_ int, name, addr string) {
		checkCompleted(t, h.migrate(name, addr), 256<<20, 2)
	})
}

func TestAPausedVMStaysPausedWhereItArrives(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b")
	h.must(0, "pause", "a")
	if r := h.migrate("a", addr); r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified {
		t.Errorf("report: %+v", r)
	}
	source.wait(0)
	if got := h.state("b"); got != "paused" {
		t.Errorf("it is %q at the destination", got)
	}
	if text := screens(dest); text != "" {
		t.Errorf("while it was paused it printed %q", text)
	}
	h.must(0, "resume", "b")
	dest.goesOn(5)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
	checkScreen(t, screens(source, dest))
}

func TestAVMKeepsItsNameUnlessItIsGivenAnother(t *testing.T) {
	here := newHost(t)
	source := here.boot("a", busy)
	there := newHost(t)
	dest, addr := there.receive()
	t.Setenv("MICROVM_STATE_DIR", here.root)
	here.migrate("a", addr)
	source.wait(0)
	t.Setenv("MICROVM_STATE_DIR", there.root)
	if got := there.state("a"); got != "running" {
		t.Errorf("there it is %q", got)
	}
	there.must(0, "stop", "a", "--force")
	dest.wait(0)
}

func TestTheConsoleGoesWithTheVM(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	source.enter("here")
	source.awaitLine("echo here")
	dest, addr := h.receive("--name", "b")
	h.migrate("a", addr)
	source.wait(0)
	dest.enter("on this terminal")
	dest.awaitLine("echo on this terminal")

	console := h.start("console", "b")
	console.enter("on another")
	console.awaitLine("echo on another")
	dest.awaitLine("echo on another")
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
	console.wait(0)
	checkScreen(t, screens(source, dest))
}

// A guest that powers off by itself ends every process that it was in, and
// what it found in its memory before is its last word.
func TestAGuestThatEndsAfterTheMoveEndsWell(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy+" sweep=1 stop=15")
	dest, addr := h.receive("--name", "b")
	h.migrate("a", addr)
	source.wait(0)
	dest.wait(0)
	text := screens(source, dest)
	checkScreen(t, text)
	if !strings.Contains(text, "\nsweep pages ") || !strings.HasSuffix(text, "end\r\n") {
		t.Errorf("its last words are missing:\n%s", tail(text))
	}
}

func TestAGuestThatEndsWhileItsMemoryIsOnTheWayEndsBothProcesses(t *testing.T) {
	h := newHost(t)
	// It stays within its first pages, so that it gets to its end without
	// those that are held.
	source := h.boot("a", "fill=1 beat=100 stop=20")
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "RAM", 64<<20)
	migrate := h.start("migrate", "a", relay.addr, "--postcopy", "--report", "json")
	relay.awaitHeld()
	dest.awaitLine("end")
	relay.letPass()
	dest.wait(0)
	migrate.wait(0)
	source.wait(0)
	checkScreen(t, screens(source, dest))
	if r := readReport(t, migrate.stdout.String()); r.Result != migration.ResultCompleted || r.RAM.PagesPostcopy == r.RAM.PagesTotal {
		t.Errorf("report: %+v", r)
	}
}

func TestProgressAndReportForPeopleAndPrograms(t *testing.T) {
	h := newHost(t)
	h.boot("a", busy)
	for i, c := range []struct {
		progress, report string
		check            func(*testing.T, result)
	}{
		{"json", "text", func(t *testing.T, r result) {
			for _, want := range []string{"migration  ", "completed", "downtime  ", "faults  ", "blocktime  ", "256 MiB"} {
				if !strings.Contains(r.stdout, want) {
					t.Errorf("the report lacks %q:\n%s", want, r.stdout)
				}
			}
			if strings.Contains(r.stdout, "verified") {
				t.Errorf("nothing was verified, but the report says:\n%s", r.stdout)
			}
			in := json.NewDecoder(strings.NewReader(r.stderr))
			in.DisallowUnknownFields()
			left := uint64(256 << 20 / pageSize)
			for n := 0; ; n++ {
				var s migration.Status
				err := in.Decode(&s)
				if err == io.EOF && n > 0 {
					break
				}
				if err != nil {
					t.Fatalf("progress, line %d: %v:\n%s", n, err, r.stderr)
				}
				if s.PagesTotal != 256<<20/pageSize || s.PagesLeft > left || s.Phase == "" {
					t.Errorf("progress, line %d: %+v", n, s)
				}
				left = s.PagesLeft
			}
		}},
		{"plain", "json", func(t *testing.T, r result) {
			if v := readReport(t, r.stdout).Verified; v != nil {
				t.Errorf("nothing was verified, but the report says %v", *v)
			}
			if !strings.Contains(r.stderr, " left") {
				t.Errorf("no progress:\n%s", r.stderr)
			}
		}},
		{"none", "json", func(t *testing.T, r result) {
			readReport(t, r.stdout)
			if r.stderr != "" {
				t.Errorf("progress: %s", r.stderr)
			}
		}},
	} {
		from, to := string(rune('a'+i)), string(rune('a'+i+1))
		_, addr := h.receive("--name", to)
		r := h.must(0, "migrate", from, addr, "--postcopy", "--progress", c.progress, "--report", c.report)
		c.check(t, r)
	}
}

func TestADetachedMigrationGoesOnByItself(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy)
	waiting := h.start("wait", "a")
	dest, addr := h.receive("--name", "b")
	relay := newRelay(t, addr, "COMPLETE", 0)
	if r := h.must(0, "migrate", "a", relay.addr, "--postcopy", "--detach"); r.stdout != "" {
		t.Errorf("migrate --detach prints %q", r.stdout)
	}
	relay.awaitHeld()
	var event struct {
		Status migration.Status
		Report *migration.Report
	}
	r := h.must(0, "migrate-status", "a", "--format", "json")
	if err := json.NewDecoder(bytes.NewBufferString(r.stdout)).Decode(&event); err != nil {
		t.Fatal(err)
	}
	if event.Status.Phase != migration.PhasePostcopyActive || event.Status.PagesLeft != 0 || event.Report != nil {
		t.Errorf("before COMPLETE the status is %+v", event)
	}
	if r := h.must(0, "ps"); !strings.Contains(r.stdout, "postcopy (migrating)") {
		t.Errorf("ps does not say that it migrates:\n%s", r.stdout)
	}
	relay.letPass()
	source.wait(0)
	waiting.wait(0)
	if want := fmt.Sprintf("migrated to %s\n", relay.addr); waiting.stdout.String() != want {
		t.Errorf("wait prints %q, want %q", waiting.stdout, want)
	}
	dest.goesOn(3)
}

// arrived checks that the guest works at the destination, and that its memory
// is whole.
func arrived(t *testing.T, h *host, r *migration.Report, source, dest *process) {
	t.Helper()
	if r.Result != migration.ResultCompleted || r.Verified == nil || !*r.Verified {
		t.Errorf("report: %+v", r)
	}
	h.endsThere(source, dest, "b")
}
