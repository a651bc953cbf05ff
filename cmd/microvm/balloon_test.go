package main

import (
	"reflect"
	"strings"
	"testing"

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
