package kvm

import (
	"strings"
	"testing"
)

// The header test compares each of them with linux/kvm.h.
func init() {
	for c, name := range capNames {
		constants[name] = uint64(c)
	}
}

func TestASurveyNamesAllThatOpenNeeds(t *testing.T) {
	open(t) // KVM is here, and has what is needed
	version, offers, err := Survey()
	if err != nil || version != apiVersion {
		t.Fatalf("version %d, %v", version, err)
	}
	needed := 0
	for _, o := range offers {
		if o.Needed {
			needed++
		}
		if o.Cap.String() == "" || o.Needed && o.Value == 0 {
			t.Errorf("%+v, where Open succeeds", o)
		}
	}
	for name, value := range constants {
		if _, ok := capNames[Cap(value)]; strings.HasPrefix(name, "KVM_CAP_") && !ok {
			t.Errorf("a survey does not ask for %s", name)
		}
	}
	if needed != len(required) || len(offers) <= needed {
		t.Errorf("%d offers, %d of them needed; Open needs %d", len(offers), needed, len(required))
	}
}
