package main

import (
	"os"
	"strings"
	"testing"
)

func TestDemoShowsAMigrationAndLeavesNothing(t *testing.T) {
	needKVM(t)
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			h := newHost(t)
			t.Setenv("TMPDIR", h.root)
			r := h.must(0, "demo", "-m", "128M", "-c", "2", "--report", format)
			if format == "json" {
				checkCompleted(t, readReport(t, r.stdout), 128<<20, 2)
			} else {
				for _, want := range []string{"completed", "verified", "true", "downtime"} {
					if !strings.Contains(r.stdout, want) {
						t.Errorf("the report lacks %q:\n%s", want, r.stdout)
					}
				}
			}
			if !strings.Contains(r.stderr, "\ndemo: beat ") {
				t.Errorf("it does not show the guest at the destination:\n%s", r.stderr)
			}
			left, err := os.ReadDir(h.root)
			if err != nil {
				t.Fatal(err)
			}
			if len(left) > 0 {
				t.Errorf("it leaves %v", left)
			}
		})
	}
}

func TestDemoThatCannotWorkSaysSo(t *testing.T) {
	h := newHost(t)
	for args, want := range map[string]string{
		"demo --report xml": "--report xml",
		"demo now":          `"now"`,
	} {
		if r := h.must(exitUsage, strings.Fields(args)...); !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %s", args, r.stderr)
		}
	}
}
