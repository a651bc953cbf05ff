package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The journal has times of its own, and the level as a priority.
func TestTheJournalGetsPrioritiesAndNoTimes(t *testing.T) {
	var out bytes.Buffer
	o := &logOptions{format: "text", level: slog.LevelInfo}
	log := slog.New(o.journalHandler(&out)).With("vm", "a").WithGroup("g")
	log.Debug("unseen")
	log.Info("begins", "n", 1)
	log.Warn("two\nlines")
	log.Error("ends")
	want := "<6>msg=begins vm=a g.n=1\n<4>msg=\"two\\nlines\" vm=a\n<3>msg=ends vm=a\n"
	if out.String() != want {
		t.Errorf("it gets\n%swant\n%s", &out, want)
	}
	out.Reset()
	o = &logOptions{format: "json", level: slog.LevelDebug}
	slog.New(o.journalHandler(&out)).Debug("seen", "time", "mine")
	line, ok := strings.CutPrefix(out.String(), "<7>")
	var fields map[string]string
	if err := json.Unmarshal([]byte(line), &fields); !ok || err != nil || fields["msg"] != "seen" || len(fields) > 2 {
		t.Errorf("it gets %s, %v", &out, err)
	}
}

func TestStderrIsTheJournalIfItIsThatFile(t *testing.T) {
	var st unix.Stat_t
	if err := unix.Fstat(2, &st); err != nil {
		t.Fatal(err)
	}
	this := fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	for stream, want := range map[string]bool{"": false, this: true, this + "0": false, "1:": false} {
		if got := toJournal(os.Stderr, stream); got != want {
			t.Errorf("JOURNAL_STREAM=%q: %v", stream, got)
		}
	}
}
