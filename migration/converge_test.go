package migration

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// slowedMachine is a busyMachine that writes less when it is told to.
type slowedMachine struct {
	*busyMachine
	mu    sync.Mutex
	steps []int // what it was told
	onMax func()
	// stubborn: it writes on as before.
	stubborn bool
}

func (m *slowedMachine) Throttle(percent int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.steps = append(m.steps, percent)
	if !m.stubborn {
		m.slow.Store(int32(percent))
	}
	if percent == throttleMost && m.onMax != nil {
		m.onMax()
	}
}

func (m *slowedMachine) told() []int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.steps)
}

// Whatever becomes of the migration, the guest has all of its time again.
func TestAutoConvergeSlowsTheGuestDownUntilPrecopyEnds(t *testing.T) {
	src := &slowedMachine{busyMachine: newBusyMachine(t, 4<<20, 4<<20, 20*time.Microsecond)}
	ctx := t.Context()
	build, _ := builderOf(t, nil)
	addr, _, done := destination(t, ctx, build)
	s, err := NewSource(src, addr, Options{Mode: ModePrecopy, AutoConverge: true, Bandwidth: 32 << 20, Downtime: 10 * time.Millisecond, Verify: true, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	r, err := s.Run(ctx)
	if derr := <-done; err != nil || derr != nil {
		t.Fatalf("source: %v; destination: %v", err, derr)
	}
	steps := src.told()
	if len(steps) < 2 || steps[0] != throttleFirst || steps[len(steps)-1] != 0 || !slices.IsSorted(steps[:len(steps)-1]) {
		t.Errorf("the steps were %v", steps)
	}
	if most := steps[max(0, len(steps)-2)]; r.Throttle.MaxPercent != most || r.Throttle.TookNS <= 0 || r.Throttle.TookNS > r.PrecopyNS+r.DowntimeNS {
		t.Errorf("the report says %+v, precopy took %d ns", r.Throttle, r.PrecopyNS)
	}
	if s.Status().Throttle != 0 || r.Verified == nil || !*r.Verified {
		t.Errorf("at the end it is slowed by %d %%; verified %v", s.Status().Throttle, r.Verified)
	}
}

func TestAGuestThatWasSlowedDownHasItsTimeAgainWhenTheMigrationFails(t *testing.T) {
	for _, c := range []struct {
		name string
		opt  Options
		want error
	}{
		{"cancelled", Options{}, ErrCancelled},
		{"timeout", Options{Timeout: 2 * time.Second}, ErrTimeout},
		{"timeout of the passes", Options{Rounds: 3}, ErrTimeout},
		{"timeout switches", Options{Timeout: 2 * time.Second, TimeoutSwitches: true}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &slowedMachine{busyMachine: newBusyMachine(t, 4<<20, 4<<20, 20*time.Microsecond)}
			src.stubborn = true
			ctx, end := context.WithCancel(t.Context())
			defer end()
			build, _ := builderOf(t, nil)
			addr, d, done := destination(t, ctx, build)
			opt := c.opt
			opt.Mode, opt.AutoConverge, opt.Bandwidth, opt.Downtime, opt.Log = ModePrecopy, true, 64<<20, time.Millisecond, testLog(t)
			s, err := NewSource(src, addr, opt)
			if err != nil {
				t.Fatal(err)
			}
			if c.want == ErrCancelled {
				src.onMax = func() {
					if got := s.Status().Throttle; got != throttleMost {
						t.Errorf("the status says %d %%", got)
					}
					s.Cancel()
				}
			}
			r, err := s.Run(ctx)
			if !errors.Is(err, c.want) {
				t.Errorf("it ended with %v, want %v", err, c.want)
			}
			if err != nil {
				d.GiveUp()
			}
			<-done
			steps := src.told()
			if len(steps) < 2 || steps[len(steps)-1] != 0 || r.Throttle.MaxPercent == 0 || r.Throttle.TookNS == 0 {
				t.Errorf("the steps were %v; the report says %+v", steps, r.Throttle)
			}
		})
	}
}

func TestAutoConvergeIsRefusedWhereItMakesNoSense(t *testing.T) {
	m := newBusyMachine(t, 1<<20, 1<<20, time.Millisecond)
	var refused *RefusedError
	for _, mode := range []Mode{ModePostcopy, ModeHybrid} {
		if _, err := NewSource(&slowedMachine{busyMachine: m}, Address{}, Options{Mode: mode, AutoConverge: true}); !errors.As(err, &refused) {
			t.Errorf("mode %s: %v", mode, err)
		}
	}
	if _, err := NewSource(m, Address{}, Options{Mode: ModePrecopy, AutoConverge: true}); !errors.As(err, &refused) {
		t.Errorf("of a machine that cannot: %v", err)
	}
}
