package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"microvm/migration"
	"microvm/vmm"
)

// schema is what docs/events.md says of each event: the type of each field. ""
// is what all events have.
type schema map[string]map[string]string

// documentedEvents reads the tables of docs/events.md.
func documentedEvents(t *testing.T) schema {
	t.Helper()
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	s, event := schema{}, ""
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			if event = name; name == "Every event" {
				event = ""
			}
			s[event] = map[string]string{}
		}
		if cells := strings.Split(line, "|"); len(cells) > 3 && strings.HasPrefix(cells[1], " `") {
			s[event][strings.Trim(cells[1], " `")] = strings.TrimSpace(cells[2])
		}
	}
	if len(s) != 11 {
		t.Fatalf("docs/events.md has %d tables", len(s))
	}
	return s
}

// check holds an object against the table of event.
func (s schema) check(t *testing.T, event string, object map[string]any) {
	t.Helper()
	fields, ok := s[event]
	if !ok {
		t.Errorf("event %q is not documented", event)
	}
	for name := range object {
		if _, ok := fields[name]; !ok {
			t.Errorf("event %q: field %q is not documented", event, name)
		}
	}
	for name, kind := range fields {
		value, ok := object[name]
		if !ok {
			t.Errorf("event %q: field %q is missing", event, name)
			continue
		}
		if !isOf(kind, value) {
			t.Errorf("event %q: field %q is %v, which is no %s", event, name, value, kind)
		}
	}
}

// isOf tells whether a decoded value is what the documentation calls kind.
func isOf(kind string, value any) bool {
	switch kind {
	case "string":
		_, ok := value.(string)
		return ok
	case "time":
		s, _ := value.(string)
		when, err := time.Parse(time.RFC3339Nano, s)
		return err == nil && when.Location() == time.UTC
	case "number":
		_, ok := value.(float64)
		return ok
	case "integer":
		n, ok := value.(float64)
		return ok && n == math.Trunc(n) && n >= 0
	case "integers":
		list, ok := value.([]any)
		for _, n := range list {
			ok = ok && isOf("integer", n)
		}
		return ok
	case "object":
		_, ok := value.(map[string]any)
		return ok
	case "report":
		object, ok := value.(map[string]any)
		return value == nil || ok && object["downtime_ns"] != nil
	}
	return false
}

// happened is one event as it was read.
type happened struct {
	Seq, Dropped        uint64
	Side, VM, ID, Event string
	Data                map[string]any
}

// readEvents checks every event of a whole log, and returns them.
func readEvents(t *testing.T, text string) []happened {
	t.Helper()
	s := documentedEvents(t)
	var events []happened
	for line := range strings.Lines(text) {
		var object map[string]any
		var e happened
		if err := json.Unmarshal([]byte(line), &object); err != nil {
			t.Fatalf("%v in the event:\n%s", err, line)
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		s.check(t, "", object)
		s.check(t, e.Event, e.Data)
		events = append(events, e)
		if e.Seq != uint64(len(events)) || e.Dropped != 0 {
			t.Errorf("event %d has number %d and says that %d were dropped", len(events), e.Seq, e.Dropped)
		}
	}
	return events
}

// kinds counts events by their type and, of some, what is special of each.
func kinds(events []happened) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[e.Event]++
		if e.Event == "downtime" {
			n[fmt.Sprint("downtime ", e.Data["part"])]++
		}
		if e.Event == "state" {
			n[fmt.Sprint("state ", e.Data["to"])]++
		}
	}
	return n
}

func TestWhoReadsTheEventsHearsAllOfAMigrationWithACut(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy, "-m", "128M")
	here, there := filepath.Join(h.root, "source.json"), filepath.Join(h.root, "destination.json")
	dest, addr := h.receive("--name", "b", "--events", there)
	relay := newRelay(t, addr, "COMPLETE", 0)
	mover := h.start("migrate", "a", relay.addr, "--mode", "hybrid", "--precopy-rounds", "2", "--report", "json", "--events", here)
	relay.awaitHeld()
	// Whoever asks meanwhile is told what was said so far.
	soFar := readEvents(t, h.must(0, "migrate-status", "a", "--events").stdout)
	if n := kinds(soFar); n["pass"] != 2 || n["downtime total"] != 1 || n["end"] != 0 {
		t.Errorf("until COMPLETE: %v", n)
	}
	drawn := filepath.Join(h.root, "a.svg")
	h.must(0, "migrate-status", "a", "--plot", drawn)
	if text, err := os.ReadFile(drawn); err != nil || !strings.Contains(string(text), "goes on: postcopy-active") || !strings.Contains(string(text), "</svg>") {
		t.Errorf("drawn until COMPLETE: %v\n%s", err, text)
	}
	watcher := h.start("migrate-status", "a", "--events", "--watch")
	watcher.awaitOutput("postcopy-active")
	relay.cut()
	relay.letPass()
	mover.wait(0)
	source.wait(0)
	watcher.wait(0)
	report := readReport(t, mover.stdout.String())
	dest.goesOn(2)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)

	read := func(name string) string {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if watcher.stdout.String() != read(here) {
		t.Errorf("migrate-status and migrate tell different events:\n%s\n%s", watcher.stdout, read(here))
	}
	for file, want := range map[string]string{here: "connections broken for", there: "as the destination saw it"} {
		if page := h.must(0, "report", file, "--format", "html").stdout; !strings.Contains(page, want) || !strings.Contains(page, "Recoveries") {
			t.Errorf("%q is not in the picture of %s:\n%s", want, file, page)
		}
	}
	if text := h.must(0, "report", here).stdout; !strings.Contains(text, "by hybrid: completed") {
		t.Errorf("as text: %s", text)
	}
	for _, c := range []struct {
		file, side, vm string
		want           string // each at least once
	}{
		{here, "source", "a", "state setup;state active;state device;state postcopy-active;state postcopy-paused;state completed;" +
			"pass;switch;downtime pause;downtime save;downtime load;downtime transfer;downtime resume;downtime total;recovery-begin;recovery-end;faults;pages;end"},
		{there, "destination", "b", "state setup;state advise;state listening;state loaded;state running;state paused;state completed;" +
			"downtime load;downtime resume;recovery-begin;recovery-end;faults;end"},
	} {
		events := readEvents(t, read(c.file))
		n := kinds(events)
		for _, kind := range strings.Split(c.want, ";") {
			if n[kind] == 0 {
				t.Errorf("%s: no %q in %v", c.side, kind, n)
			}
		}
		for i, e := range events {
			if e.Side != c.side || e.VM != c.vm || (e.ID != report.ID && (e.ID != "" || i > 0)) {
				t.Errorf("%s: event %d is of %s, VM %q, migration %q", c.side, i, e.Side, e.VM, e.ID)
			}
		}
		if c.side == "source" {
			checkPages(t, events, report)
		}
		last := events[len(events)-1]
		if last.Event != "end" || n["end"] != 1 || last.Data["result"] != "completed" || last.Data["owner"] != "destination" {
			t.Errorf("%s: the last event is %+v", c.side, last)
		}
		if (c.side == "source") != (last.Data["report"] != nil) {
			t.Errorf("%s: the report in the last event is %v", c.side, last.Data["report"])
		}
	}
}

// checkPages holds the ticks of pages, of which the last is right before the end,
// against what the report says of the same pages.
func checkPages(t *testing.T, events []happened, r *migration.Report) {
	t.Helper()
	var before, last map[string]any
	for _, e := range events {
		if e.Event != "pages" {
			continue
		}
		last = e.Data
		for _, field := range []string{"pages_precopy", "pages_pushed", "pages_requested", "pages_zero", "requests", "bytes_wire"} {
			if before != nil && last[field].(float64) < before[field].(float64) {
				t.Errorf("%s falls from %v to %v", field, before[field], last[field])
			}
		}
		before = last
	}
	number := func(field string) uint64 { return uint64(last[field].(float64)) }
	if number("pages_precopy") != r.RAM.PagesPrecopy || number("pages_requested") != r.RAM.PagesRequested || number("pages_zero") != r.RAM.PagesZero ||
		number("pages_pushed")+number("pages_requested") != r.RAM.PagesPostcopy || number("pages_left") != 0 || number("requests") < number("pages_requested") {
		t.Errorf("the last of the pages is %v, the report has %+v", last, r.RAM)
	}
}

func TestEventsOfAPrecopyThatIsSlowedDownAndCancelled(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", "work=write order=rand fill=1 check=1 mem=1M beat=50", "-m", "128M")
	dest, addr := h.receive("--name", "b", "--console", "socket", "--events", "-")
	mover := h.start("migrate", "a", addr, "--mode", "precopy", "--auto-converge", "--downtime", "1ns", "--bandwidth", "1M", "--events", "-")
	mover.awaitOutput(`"percent":20`)
	h.must(0, "migrate-cancel", "a")
	mover.wait(exitStays)
	<-dest.ended
	events := readEvents(t, mover.stdout.String())
	var slowed []any
	for _, e := range events {
		if e.Event == "throttle" {
			slowed = append(slowed, e.Data["percent"])
		}
	}
	last := events[len(events)-1]
	if len(slowed) < 2 || slowed[0] != 20.0 || slowed[len(slowed)-1] != 0.0 || last.Data["result"] != string(migration.ResultCancelled) || last.Data["owner"] != "source" {
		t.Errorf("slowed down by %v; at the end: %+v", slowed, last)
	}
	_, text, _ := strings.Cut(dest.stdout.String(), "\n") // the address
	if there := readEvents(t, text); there[len(there)-1].Data["result"] != string(migration.ResultFailed) {
		t.Errorf("the destination: %+v", there[len(there)-1])
	}
	source.goesOn(2)
	h.must(0, "stop", "a", "--force")
}

func TestHowLongTheGuestWaitsShowsWhileItDoes(t *testing.T) {
	h := newHost(t)
	source := h.boot("a", busy, "-m", "128M")
	dest, addr := h.receive("--name", "b")
	mover := h.start("migrate", "a", addr, "--postcopy", "--postcopy-bandwidth", "30M")
	h.awaitStatus("a", "all vCPUs at once")
	var status vmm.MigrationEvent
	if err := json.Unmarshal([]byte(h.must(0, "migrate-status", "a", "--format", "json").stdout), &status); err != nil {
		t.Fatal(err)
	}
	if w := status.Status.Waits; w == nil || len(w.VCPUBlocktimeNS) != 2 || w.Faults.Count == 0 || w.Faults.Phases.TravelP50NS == 0 || w.Faults.Phases.SourceP50NS == 0 {
		t.Errorf("the waits so far: %+v", w)
	}
	mover.wait(0)
	source.wait(0)
	dest.goesOn(2)
	h.must(0, "stop", "b", "--force")
}
