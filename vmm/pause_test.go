package vmm

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
)

// A lost kick would hang Pause; a half-done instruction that is run again, or
// not at all, would be a BAD page or a garbled line.
func TestPauseStormLosesNothing(t *testing.T) {
	const rounds = 200
	config := tinyConfig("work=write order=rand fill=1 check=1 mem=8M beat=10")
	config.CPUs = 2
	vm, out := boot(t, config)
	out.wait(t, 1, "ready")
	for i := range rounds {
		if err := vm.Pause(t.Context()); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		if s := vm.State(); s != StatePaused {
			t.Fatalf("round %d: state %v", i, s)
		}
		if i%10 == 0 {
			// Each device answers, and KVM says that no exit is half done.
			for _, d := range vm.Devices() {
				if _, err := d.Save(); err != nil {
					t.Fatalf("round %d: save %s: %v", i, d.ID(), err)
				}
			}
		}
		if err := vm.Resume(); err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
	}
	before := lines(out.String(), "beat ")
	out.wait(t, before+10, "beat ")
	if text := out.String(); strings.Contains(text, "BAD") {
		t.Errorf("the guest printed:\n%s", text)
	}
}

func TestPausedGuestDoesNothing(t *testing.T) {
	vm, out := boot(t, tinyConfig("work=write fill=1 mem=8M beat=10"))
	out.wait(t, 3, "beat ")
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vm.serial.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ram, err := vm.ram.View(0, vm.ram.Size())
	if err != nil {
		t.Fatal(err)
	}
	sum, text := checksum(ram), out.String()
	// Long enough for a guest that runs to print: as long as it took to
	// get here from the last heartbeat, and a checksum more.
	if again := checksum(ram); again != sum || out.String() != text {
		t.Errorf("memory %x, then %x; output grew by %q", sum, again, strings.TrimPrefix(out.String(), text))
	}
	if err := vm.Resume(); err != nil {
		t.Fatal(err)
	}
	out.wait(t, lines(text, "beat ")+3, "beat ")
}

// Pauses, resumes and the end come from different clients of one VM.
func TestPauseRacesWithStop(t *testing.T) {
	for range 20 {
		vm, out := boot(t, tinyConfig("work=write fill=1 mem=2M beat=10"))
		out.wait(t, 1, "beat ")
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				for {
					if err := errors.Join(vm.Pause(t.Context()), vm.Resume()); err != nil {
						return
					}
				}
			})
		}
		all.Go(func() {
			if err := vm.PowerOff(); err != nil {
				t.Error(err)
			}
		})
		all.Wait()
		if s := vm.State(); s != StateStopped {
			t.Errorf("state %v", s)
		}
	}
}

func TestPauseThatIsGivenUpLeavesTheVMRunning(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=10"))
	out.wait(t, 1, "beat ")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 100 {
		if err := vm.Pause(ctx); err == nil {
			// It was quicker than the look at ctx.
			if err := vm.Resume(); err != nil {
				t.Fatal(err)
			}
		} else if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if s := vm.State(); s != StateRunning {
		t.Errorf("state %v", s)
	}
	out.wait(t, lines(out.String(), "beat ")+3, "beat ")
}
