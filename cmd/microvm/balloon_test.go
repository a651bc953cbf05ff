package main

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"

	"microvm/devices/virtio/balloon"
	"microvm/vmm"
)

func TestParseBalloon(t *testing.T) {
	for text, want := range map[string]any{
		"0":                                     vmm.BalloonConfig{},
		"":                                      vmm.BalloonConfig{},
		"64M":                                   vmm.BalloonConfig{Size: 64 << 20},
		"64M,deflate-on-oom":                    vmm.BalloonConfig{Size: 64 << 20, DeflateOnOOM: true},
		",free-page-reporting":                  vmm.BalloonConfig{FreePageReporting: true},
		"free-page-reporting":                   vmm.BalloonConfig{FreePageReporting: true},
		"1G,free-page-reporting,deflate-on-oom": vmm.BalloonConfig{Size: 1 << 30, FreePageReporting: true, DeflateOnOOM: true},
		"64M,32M":                               `"32M"`,
		"64M,":                                  `""`,
		"much":                                  `"much"`,
		"deflate":                               `"deflate"`,
	} {
		got, err := parseBalloon(text)
		if refusal, ok := want.(string); ok {
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%q: %v, want %s in it", text, err, refusal)
			}
		} else if err != nil || !reflect.DeepEqual(*got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

func TestParseShare(t *testing.T) {
	for text, want := range map[string]uint64{"0": 0, "64M": 64 << 20, "25%": 256 << 20, "12.5%": 128 << 20, "100%": 1 << 30, "0%": 0} {
		if share, err := parseShare(text); err != nil || share(1<<30) != want {
			t.Errorf("%q: %v, want %d", text, err, want)
		}
	}
	for _, text := range []string{"", "%", "-1%", "101%", "NaN%", "1e9%", "x", "12q"} {
		if _, err := parseShare(text); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}

// TestABalloonIsAskedForItsSize of a guest that has no driver: what it is to
// hold is kept, and it holds nothing.
func TestABalloonIsAskedForItsSize(t *testing.T) {
	h := newHost(t)
	h.boot("a", "beat=100", "--balloon", "1M")
	for _, c := range []struct {
		arg    string
		target int
	}{{"", 1 << 20}, {"25%", 64 << 20}, {"0", 0}} {
		if c.arg != "" {
			h.must(0, "balloon", "a", c.arg)
		}
		var s balloon.Stats
		if err := json.Unmarshal([]byte(h.must(0, "balloon", "a").stdout), &s); err != nil || s.Target != uint64(c.target) || s.Actual != 0 || s.Guest != nil {
			t.Errorf("after %q: %+v, %v", c.arg, s, err)
		}
	}
	if r := h.must(exitFailure, "balloon", "a", "300M"); !strings.Contains(r.stderr, "the guest has 268435456") {
		t.Errorf("more than there is: %s", r.stderr)
	}
	h.must(exitUsage, "balloon", "a", "much")
	h.must(exitUsage, "balloon")
	h.must(exitNoVM, "balloon", "b", "1M")
	h.boot("c", "beat=100")
	if r := h.must(exitFailure, "balloon", "c", "1M"); !strings.Contains(r.stderr, "run it with --balloon") {
		t.Errorf("a VM without: %s", r.stderr)
	}
}
