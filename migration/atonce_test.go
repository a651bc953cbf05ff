package migration

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// twinDevice can be saved and loaded together with its neighbours of this kind.
type twinDevice struct {
	id             string
	state          string
	onSave, onLoad func() error
}

func (d *twinDevice) ID() string            { return d.id }
func (d *twinDevice) Version() uint32       { return 1 }
func (d *twinDevice) Concurrent()           {}
func (d *twinDevice) Save() ([]byte, error) { return []byte(d.state), d.onSave() }
func (d *twinDevice) Load(_ uint32, state []byte) error {
	d.state = string(state)
	return d.onLoad()
}

// twins are n devices with states, each of which calls the functions made by
// save and load.
func twins(n int, state string, save, load func() error) (all []*twinDevice) {
	for i := range n {
		all = append(all, &twinDevice{id: fmt.Sprintf("twin%d", i), state: state, onSave: save, onLoad: load})
	}
	return all
}

// moveTwins moves a machine with one set of twins to one with the other.
func moveTwins(t *testing.T, from, to []*twinDevice) *move {
	t.Helper()
	src := newTestMachine(t, 4<<20)
	src.fill(t)
	src.twins = from
	build, built := builderOf(t, func(dst *testMachine) { dst.twins = to })
	addr, _, done := destination(t, t.Context(), build)
	s, err := NewSource(src, addr, Options{Verify: true, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	mv := &move{source: src}
	mv.report, mv.err = s.Run(t.Context())
	mv.destErr, mv.dest = <-done, built()
	return mv
}

// With many vCPUs, saving one after the other would be most of the downtime.
func TestDevicesThatCanBeAreSavedAndLoadedAtOnce(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	const n = 6
	// Each waits until another one is being saved, or loaded, too.
	inPairs := func() func() error {
		pair := make(chan struct{})
		return func() error {
			select {
			case pair <- struct{}{}:
			case <-pair:
			case <-t.Context().Done():
			}
			return nil
		}
	}
	mv := moveTwins(t, twins(n, "of a twin", inPairs(), nil), twins(n, "", nil, inPairs()))
	mv.completed(t)
	for _, d := range mv.dest.twins {
		if d.state != "of a twin" {
			t.Errorf("%s: %q", d.id, d.state)
		}
	}
}

// What fails is named, and the guest stays where it was.
func TestOneOfManyDevicesDoesNotLoad(t *testing.T) {
	fine := func() error { return nil }
	to := twins(4, "", nil, fine)
	to[2].onLoad = func() error { return errors.New("burnt") }
	mv := moveTwins(t, twins(4, "of a twin", fine, nil), to)
	for _, err := range []error{mv.err, mv.destErr} {
		if err == nil || !strings.Contains(err.Error(), `device "twin2"`) || !strings.Contains(err.Error(), "burnt") {
			t.Errorf("%v", err)
		}
	}
	if mv.report.Owner != OwnerSource {
		t.Errorf("owner %s", mv.report.Owner)
	}
}

func TestNeighboursThatGoTogether(t *testing.T) {
	alone, twin := &testDevice{}, &twinDevice{}
	for _, c := range []struct {
		devices []Snapshotter
		sizes   []int
	}{
		{nil, nil},
		{[]Snapshotter{alone}, []int{1}},
		{[]Snapshotter{twin, twin, twin}, []int{3}},
		{[]Snapshotter{alone, twin, twin, alone, alone, twin}, []int{1, 2, 1, 1, 1}},
		{[]Snapshotter{twin, alone, twin, twin}, []int{1, 1, 2}},
	} {
		var sizes []int
		var devices []Snapshotter
		for _, run := range runs(c.devices) {
			sizes = append(sizes, len(run))
			devices = append(devices, run...)
		}
		if !slices.Equal(sizes, c.sizes) || !slices.Equal(devices, c.devices) {
			t.Errorf("%v: cut into %v", c.devices, sizes)
		}
	}
}
