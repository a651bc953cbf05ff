package main

import (
	"strings"
	"testing"
)

func read(t *testing.T, events string) (summary, string) {
	t.Helper()
	var all summary
	var shown strings.Builder
	r := newReader("unit", &all, &shown, false)
	if err := r.read(strings.NewReader(events)); err != nil {
		t.Fatal(err)
	}
	r.finish()
	all.print(&shown)
	return all, shown.String()
}

func TestResultsAreCountedAndShown(t *testing.T) {
	for _, c := range []struct {
		name   string
		events string
		counts string
		good   bool
		shown  []string // in the output
		hidden []string // not in it
	}{{
		name: "a test passes",
		events: `{"Action":"run","Package":"microvm/kvm","Test":"TestA"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA","Output":"chatter\n"}
{"Action":"pass","Package":"microvm/kvm","Test":"TestA","Elapsed":1}
{"Action":"pass","Package":"microvm/kvm","Elapsed":1.5}`,
		counts: "1 ran, 1 passed, 0 skipped, 0 failed", good: true,
		shown: []string{"ok   unit     kvm", "    1.0 s unit: kvm.TestA\n"}, hidden: []string{"chatter"},
	}, {
		name: "one subtest fails, one is skipped",
		events: `{"Action":"run","Package":"microvm/kvm","Test":"TestA"}
{"Action":"run","Package":"microvm/kvm","Test":"TestA/x"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA/x","Output":"    a.go:3: got 1, want 2\n"}
{"Action":"fail","Package":"microvm/kvm","Test":"TestA/x"}
{"Action":"run","Package":"microvm/kvm","Test":"TestA/y"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA/y","Output":"=== RUN   TestA/y\n"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA/y","Output":"    a.go:9: no /dev/kvm: modprobe kvm_amd\n"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA/y","Output":"    --- SKIP: TestA/y (0.00s)\n"}
{"Action":"skip","Package":"microvm/kvm","Test":"TestA/y"}
{"Action":"fail","Package":"microvm/kvm","Test":"TestA"}
{"Action":"fail","Package":"microvm/kvm"}`,
		counts: "2 ran, 0 passed, 1 skipped, 1 failed",
		shown:  []string{"got 1, want 2", "FAILED  unit: kvm.TestA/x\n", "SKIPPED unit: kvm.TestA/y\n        no /dev/kvm: modprobe kvm_amd\n"},
	}, {
		name: "a package does not build",
		events: `{"ImportPath":"microvm/kvm [microvm/kvm.test]","Action":"build-output","Output":"kvm/a.go:7:2: undefined: x\n"}
{"ImportPath":"microvm/kvm [microvm/kvm.test]","Action":"build-fail"}
{"Action":"fail","Package":"microvm/kvm","Elapsed":0,"FailedBuild":"microvm/kvm [microvm/kvm.test]"}`,
		counts: "0 ran, 0 passed, 0 skipped, 1 failed",
		shown:  []string{"undefined: x", "BROKEN  unit: kvm: does not build"},
	}, {
		name: "a test takes the process down",
		events: `{"Action":"run","Package":"microvm/kvm","Test":"TestA"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA","Output":"fatal error: all gone\n"}
{"Action":"fail","Package":"microvm/kvm"}`,
		counts: "1 ran, 0 passed, 0 skipped, 1 failed",
		shown:  []string{"all gone", "FAILED  unit: kvm.TestA (did not end)"},
	}, {
		name: "go test is cut short",
		events: `{"Action":"run","Package":"microvm/kvm","Test":"TestA"}
{"Action":"output","Package":"microvm/kvm","Test":"TestA","Output":"as far as this\n"}`,
		counts: "1 ran, 0 passed, 0 skipped, 1 failed",
		shown:  []string{"as far as this"},
	}, {
		name: "a package fails before its tests",
		events: `{"Action":"output","Package":"microvm/kvm","Output":"panic: in TestMain\n"}
{"Action":"fail","Package":"microvm/kvm"}`,
		counts: "0 ran, 0 passed, 0 skipped, 1 failed",
		shown:  []string{"in TestMain", "failed outside of its tests"},
	}, {
		name: "nothing ran", events: "", counts: "0 ran", good: false,
	}} {
		t.Run(c.name, func(t *testing.T) {
			all, shown := read(t, c.events)
			if all.good() != c.good {
				t.Errorf("good: %v, want %v", all.good(), c.good)
			}
			for _, s := range append(c.shown, c.counts) {
				if !strings.Contains(shown, s) {
					t.Errorf("not shown: %q in:\n%s", s, shown)
				}
			}
			for _, s := range c.hidden {
				if strings.Contains(shown, s) {
					t.Errorf("shown: %q in:\n%s", s, shown)
				}
			}
		})
	}
}
