package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"microvm/migration"
)

// elements are all that an image is made of: nothing that runs or fetches.
var elements = []string{"svg", "title", "style", "rect", "text", "path", "line"}

// checkSVG wants a whole image without anything that runs or fetches, and
// returns its words.
func checkSVG(t *testing.T, image []byte) string {
	t.Helper()
	var words strings.Builder
	d := xml.NewDecoder(bytes.NewReader(image))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return words.String()
		}
		if err != nil {
			t.Fatalf("no XML: %v\n%s", err, image)
		}
		switch token := token.(type) {
		case xml.StartElement:
			if !slices.Contains(elements, token.Name.Local) {
				t.Fatalf("element %q", token.Name.Local)
			}
			for _, a := range token.Attr {
				if strings.Contains(a.Value, "NaN") || strings.Contains(a.Value, "Inf") || strings.Contains(a.Value, "%!") || strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Fatalf("%s has %s=%q", token.Name.Local, a.Name.Local, a.Value)
				}
			}
		case xml.CharData:
			words.Write(token)
			words.WriteByte('\n')
		}
	}
}

// draw reads a file and draws it.
func draw(t *testing.T, text string) string {
	t.Helper()
	r, err := Read(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := r.SVG(&image); err != nil {
		t.Fatal(err)
	}
	return checkSVG(t, image.Bytes())
}

// A told is a log in the making.
type told struct {
	text     strings.Builder
	side, id string
	seq      int
	began    time.Time
}

func (l *told) add(after time.Duration, event, data string) {
	l.seq++
	fmt.Fprintf(&l.text, `{"time":%q,"seq":%d,"dropped":0,"side":%q,"vm":"web<script>&amp;","id":%q,"event":%q,"data":%s}`+"\n",
		l.began.Add(after).Format(time.RFC3339Nano), l.seq, l.side, l.id, event, data)
}

const ms = time.Millisecond

// hybrid is a migration with a recovery; report: as it ends.
func hybrid(report string) *told {
	l := &told{side: "source", id: "0123456789abcdef", began: time.Date(2026, 11, 21, 10, 0, 0, 0, time.UTC)}
	l.add(0, "state", `{"from":"","to":"setup"}`)
	l.add(2*ms, "state", `{"from":"setup","to":"active"}`)
	for i := range 50 {
		l.add(time.Duration(2+20*i)*ms, "pages", fmt.Sprintf(`{"pages_precopy":%d,"pages_pushed":0,"pages_requested":0,"pages_zero":%d,"pages_left":0,"requests":0,"bytes_wire":0}`, 500*i, 100*i))
	}
	l.add(1000*ms, "pass", `{"number":1,"sent_bytes":134217728,"took_ns":998000000,"dirty_bytes":4194304}`)
	l.add(1001*ms, "switch", `{"to":"postcopy","reason":"another pass would not help","pages_left":1024}`)
	l.add(1001*ms, "state", `{"from":"active","to":"device"}`)
	for _, part := range []string{"pause", "save", "load", "transfer", "resume", "total"} {
		l.add(1004*ms, "downtime", fmt.Sprintf(`{"part":%q,"took_ns":%d}`, part, len(part)*100_000))
	}
	l.add(1004*ms, "state", `{"from":"device","to":"postcopy-active"}`)
	l.add(1100*ms, "recovery-begin", `{"error":"reset","pages_left":900}`)
	l.add(1100*ms, "state", `{"from":"postcopy-active","to":"postcopy-paused"}`)
	l.add(1300*ms, "recovery-end", `{"recoveries":1,"took_ns":200000000,"pages_left":900}`)
	l.add(1300*ms, "state", `{"from":"postcopy-paused","to":"postcopy-active"}`)
	for i := range 20 {
		l.add(time.Duration(1300+20*i)*ms, "pages", fmt.Sprintf(`{"pages_precopy":24500,"pages_pushed":%d,"pages_requested":%d,"pages_zero":4900,"pages_left":0,"requests":%d,"bytes_wire":0}`, 40*i, 10*i, 10*i))
	}
	l.add(1700*ms, "faults", `{"count":190,"requested":190,"async":0,"p50_ns":120000,"p90_ns":200000,"p99_ns":900000,"max_ns":1500000,"blocktime_ns":1000000,"vcpu_blocktime_ns":[9000000,12000000],"device_blocktime_ns":0,"pages_left":0,"phases":{}}`)
	if report != "" {
		l.add(1702*ms, "end", `{"result":"completed","owner":"destination","error":"","report":`+report+`}`)
	}
	return l
}

const report = `{"vm":"web<script>&amp;","id":"0123456789abcdef","mode":"hybrid","result":"completed","owner":"destination","error":"",
"downtime_ns":3000000,"downtime":{"pause_ns":1000000,"save_ns":500000,"transfer_ns":900000,"load_ns":400000,"resume_ns":200000},
"total_ns":1702000000,"precopy_ns":998000000,"postcopy_ns":698000000,"precopy_passes":1,"switch":"another pass would not help",
"ram":{"bytes_total":134217728,"pages_total":32768,"pages_zero":4900,"pages_precopy":24500,"pages_postcopy":950,"pages_requested":190,"bytes_wire":104857600},
"faults":{"count":190,"requested":190,"p50_ns":120000,"p90_ns":200000,"p99_ns":900000,"max_ns":1500000,"histogram_log2_us":[0,0,0,0,0,10,60,100,15,4,1]},
"blocktime_ns":1000000,"vcpu_blocktime_ns":[9000000,12000000],"device_blocktime_ns":0,"channels":2,"recoveries":1,"verified":true}`

func TestAPictureSaysWhatHappened(t *testing.T) {
	always := []string{"hybrid", "completed, the guest is at the destination", "3 ms", "1.7 s", "128 MiB", "pause", "33 %", "p99 900 µs", "precopy 24.5 k", "pushed 760", "requested 190", "zero 4900", "vCPU 1", "12 ms"}
	timed := []string{"downtime 3 ms", "connections broken for 200 ms", "Requests for pages", "2026-11-21 10:00:00 UTC"}
	for _, c := range []struct {
		name, text string
		want       []string
	}{
		{"events", hybrid(report).text.String(), append(timed, always...)},
		{"events, the last line torn", hybrid(report).text.String() + `{"time":"2026`, append(timed, always...)},
		{"a report", report, always},
		{"migrate-status --format json", `{"status":{"phase":"completed"},"report":` + report + `}`, always},
		{"a migration that goes on", hybrid("").text.String(), []string{"goes on: postcopy-active", "So far", "1.7 s", "p99 900 µs", "requested 190", "downtime 500 µs"}},
		{"one after another", strings.ReplaceAll(hybrid("").text.String(), "0123", "9999") + hybrid(report).text.String(), always},
		{"told again from the beginning", hybrid("").text.String() + hybrid(report).text.String(), append(timed, always...)},
	} {
		t.Run(c.name, func(t *testing.T) {
			words := draw(t, c.text)
			for _, want := range append(c.want, "web<script>&amp;") {
				if !strings.Contains(words, want) {
					t.Errorf("%q is not in it:\n%s", want, words)
				}
			}
		})
	}
}

// TestADestinationsEventsMakeAPicture, of what a destination can know.
func TestADestinationsEventsMakeAPicture(t *testing.T) {
	l := &told{side: "destination", id: "", began: time.Now()}
	l.add(0, "state", `{"from":"","to":"setup"}`)
	l.id = "ab"
	l.add(time.Minute, "state", `{"from":"setup","to":"running"}`)
	for i := range 4 {
		l.add(time.Minute+time.Duration(250*i)*ms, "faults", fmt.Sprintf(`{"count":%d,"requested":%d,"p50_ns":1000,"vcpu_blocktime_ns":[5000]}`, 100*i, 100*i))
	}
	l.add(time.Minute+time.Second, "end", `{"result":"completed","owner":"destination","error":"","report":null}`)
	words := draw(t, l.text.String())
	for _, want := range []string{"as the destination saw it", "completed, the guest is at the destination", "Faults per second", "vCPU 0"} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not in it:\n%s", want, words)
		}
	}
}

func TestALongNameStaysClearOfTheOutcome(t *testing.T) {
	name := strings.Repeat("n", longName)
	words := draw(t, strings.ReplaceAll(report, "web<script>&amp;", name))
	headline := regexp.MustCompile(`n+… · hybrid`).FindString(words)
	if total := 1.15 * (width(24, headline) + width(14, "completed, the guest is at the destination")); headline == "" || total > imageWidth-28-right {
		t.Errorf("%q is %v long with the outcome", headline, total)
	}
}

func TestWhatTheFaultEventSaysIsThere(t *testing.T) {
	l := &told{side: "destination", id: "ab", began: time.Now()}
	l.add(0, "state", `{"from":"","to":"running"}`)
	l.add(ms, "faults", `{"count":5,"requested":3,"async":2,"p50_ns":7,"vcpu_blocktime_ns":[],"phases":{"kernel_p50_ns":11,"wake_p99_ns":13}}`)
	r, err := Read(strings.NewReader(l.text.String()))
	if err != nil {
		t.Fatal(err)
	}
	want := migration.FaultReport{Count: 5, Requested: 3, Async: 2, P50NS: 7, Phases: migration.FaultPhases{KernelP50NS: 11, WakeP99NS: 13}}
	if w := r.Waits(); w == nil || !reflect.DeepEqual(w.Faults, want) {
		t.Errorf("%+v, want %+v", w, want)
	}
}

// The state is told before the vCPUs are asked to stop, which may take a while.
func TestTheDowntimeBeginsWhenTheGuestStops(t *testing.T) {
	l := &told{side: "source", id: "ab", began: time.Now()}
	l.add(0, "pages", `{"pages_precopy":0}`)
	l.add(0, "state", `{"from":"","to":"device"}`)
	l.add(500*ms, "downtime", `{"part":"pause","took_ns":0}`)
	l.add(750*ms, "state", `{"from":"device","to":"postcopy-active"}`)
	l.add(750*ms, "downtime", `{"part":"total","took_ns":250000000}`)
	l.add(1000*ms, "pages", `{"pages_precopy":100}`)
	r, err := Read(strings.NewReader(l.text.String()))
	if err != nil {
		t.Fatal(err)
	}
	var image bytes.Buffer
	if err := r.SVG(&image); err != nil {
		t.Fatal(err)
	}
	// x, y, width, height; the axis has a width of its own.
	m := regexp.MustCompile(`<rect class="stop" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"`).FindStringSubmatch(image.String())
	if m == nil {
		t.Fatal("no downtime is drawn")
	}
	x, _ := strconv.ParseFloat(m[1], 64)
	w, _ := strconv.ParseFloat(m[2], 64)
	whole := float64(imageWidth - left - right)
	if math.Abs((x-left)/whole-0.5) > 0.001 || math.Abs(w/whole-0.25) > 0.001 {
		t.Errorf("from %v, %v wide, of %v", x-left, w, whole)
	}
}

func TestWhatIsNoMigrationIsRefused(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "there is no event"},
		{"hello", "value 1: no JSON"},
		{"[]", "no JSON object"},
		{"{}", "neither an event"},
		{`{"mode":"hybrid"`, "value 1: no JSON"},
		{strings.Replace(report, `"downtime_ns":3000000`, `"downtime_ns":-3`, 1), "-3 ns: has to be 0 or more"},
		{strings.Replace(report, `"result":"completed"`, `"result":"fine"`, 1), `result is "fine"`},
		{strings.Replace(report, `"count":190`, `"count":"many"`, 1), "count"},
		{strings.Replace(report, `[9000000,12000000]`, "["+strings.Repeat("1,", maxVCPUs)+"1]", 1), "vCPUs, at most"},
		{strings.Replace(report, `[0,0,`, "["+strings.Repeat("1,", maxBuckets), 1), "buckets, at most"},
		{report + report, "something follows the report"},
		{hybrid("").text.String() + report, "no event, after events"},
		{`{"status":{"phase":"active"}}`, "--plot"},
		{`{"event":"state","seq":1,"side":"middle","id":"a","data":{}}`, `side is "middle"`},
		{`{"event":"state","seq":0,"side":"source","id":"a","data":{}}`, "seq is 0"},
		{`{"event":"state","seq":1,"side":"source","id":"a","data":[]}`, `event 1 ("state")`},
		{`{"mode":"` + strings.Repeat("x", 2*maxValue) + `"}`, "larger than 1048576 bytes"},
	} {
		if _, err := Read(strings.NewReader(c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%.60s: %v, want %q", c.text, err, c.want)
		}
	}
}

// TestWhatATerminalIsGivenHasNoControlCharacters: a file may come from anywhere.
func TestWhatATerminalIsGivenHasNoControlCharacters(t *testing.T) {
	r, err := Read(strings.NewReader(strings.Replace(report, `"error":""`, `"error":"\u001b[2Jgone\n`+strings.Repeat("x", 2*maxText)+`"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	if text := r.Failure(); strings.ContainsAny(text, "\x1b\n") || len(text) > maxText+10 || !strings.Contains(text, "gone") {
		t.Errorf("%q", text)
	}
}

// TestALongMigrationMakesASmallPicture: what is kept and drawn is bounded.
func TestALongMigrationMakesASmallPicture(t *testing.T) {
	var e Events
	l := &told{side: "source", id: "ab", began: time.Now()}
	l.add(0, "state", `{"from":"","to":"active"}`)
	for i := range 3 * mostSamples {
		l.add(time.Duration(i)*time.Second, "pages", fmt.Sprintf(`{"pages_precopy":%d}`, i*i))
	}
	for line := range strings.Lines(l.text.String()) {
		if err := e.Add([]byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := e.Record()
	if err != nil {
		t.Fatal(err)
	}
	samples := r.pages.all()
	if n := len(samples); n > mostSamples || samples[n-1].at != (3*mostSamples-1)*time.Second || samples[0].at != 0 {
		t.Errorf("%d samples, from %v to %v", n, samples[0].at, samples[n-1].at)
	}
	var image bytes.Buffer
	if err := r.SVG(&image); err != nil || image.Len() > 30<<10 {
		t.Errorf("an image of %d bytes, %v", image.Len(), err)
	}
}

func TestThePageFetchesNothing(t *testing.T) {
	r, err := Read(strings.NewReader(hybrid(report).text.String()))
	if err != nil {
		t.Fatal(err)
	}
	var page bytes.Buffer
	if err := r.HTML(&page, "the <b>text</b>"); err != nil {
		t.Fatal(err)
	}
	text := page.String()
	for _, bad := range []string{"<script", "src=", "<b>", "url("} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	for _, want := range []string{"<svg", "</svg>", "&lt;b&gt;text", "default-src 'none'"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
}

func TestNumbersAreForPeople(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{timeText(0), "0 ns"}, {timeText(999), "999 ns"}, {timeText(1234), "1.23 µs"}, {timeText(999_960), "1 ms"}, {timeText(12_340_000), "12.3 ms"},
		{timeText(99_000_000_000), "99 s"}, {timeText(125_000_000_000), "2 min 5 s"}, {timeText(12_000_000_000_000), "3 h 20 min"},
		{bytesText(0), "0 B"}, {bytesText(1023), "1023 B"}, {bytesText(1 << 20), "1 MiB"}, {bytesText(3 << 29), "1.5 GiB"},
		{countText(9999), "9999"}, {countText(24_500), "24.5 k"}, {countText(1<<64 - 1), "18446744074 G"},
		{percentText(1, 3), "33 %"}, {percentText(1, 1e6), "< 0.1 %"}, {percentText(1, 0), "0 %"},
		{cut("größe", 6), "gr…"}, {cut("abc", 3), "abc"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
	var words []string
	for _, m := range timeTicks(4.2e9, 10) {
		words = append(words, m.text)
	}
	if got := strings.Join(words, ","); got != "0 s,0.5 s,1 s,1.5 s,2 s,2.5 s,3 s,3.5 s,4 s" {
		t.Error(got)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(report))
	f.Add([]byte(hybrid(report).text.String()))
	f.Add([]byte(hybrid("").text.String()))
	f.Add([]byte(`{"status":{},"report":` + report + `}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Read(bytes.NewReader(text))
		if err != nil {
			return
		}
		var image bytes.Buffer
		if err := r.SVG(&image); err != nil {
			t.Fatal(err)
		}
		checkSVG(t, image.Bytes())
		if most := 100<<10 + len(text)/10; image.Len() > most {
			t.Errorf("an image of %d bytes", image.Len())
		}
		if err := r.HTML(io.Discard, ""); err != nil {
			t.Fatal(err)
		}
	})
}
