package migration

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"testing"

	"microvm/memslot"
)

// move is one migration between two machines of this process.
type move struct {
	source, dest *testMachine
	report       *Report
	err          error // of the source
	destErr      error
}

// destination starts to receive on a loopback socket, building with build.
func destination(t *testing.T, ctx context.Context, build Builder) (Address, *Destination, <-chan error) {
	t.Helper()
	ln, err := Listen(ctx, Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := ListenAddress(ln)
	d := NewDestination(build, DestinationOptions{Log: testLog(t)})
	done := make(chan error, 1)
	go func() { done <- d.Receive(ctx, ln) }()
	return addr, d, done
}

func testLog(t *testing.T) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// builderOf builds the machine that configure adjusts before it is used.
func builderOf(t *testing.T, configure func(*testMachine)) (Builder, func() *testMachine) {
	var built *testMachine
	return func(_ context.Context, config []byte) (DestinationMachine, error) {
		var c testConfig
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, err
		}
		built = newTestMachine(t, c.Sizes...)
		if configure != nil {
			configure(built)
		}
		return built, nil
	}, func() *testMachine { return built }
}

// migrate moves a machine with blocks of these sizes and waits for both sides.
func migrate(t *testing.T, opt Options, configure func(src, dst *testMachine), sizes ...uint64) *move {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := newTestMachine(t, sizes...)
	src.fill(t)
	build, built := builderOf(t, func(dst *testMachine) {
		if configure != nil {
			configure(src, dst)
		}
	})
	addr, _, done := destination(t, ctx, build)
	opt.Log = testLog(t)
	s, err := NewSource(src, addr, opt)
	if err != nil {
		t.Fatal(err)
	}
	mv := &move{source: src}
	mv.report, mv.err = s.Run(ctx)
	mv.destErr = <-done
	mv.dest = built()
	return mv
}

// completed fails the test unless the move went through.
func (mv *move) completed(t *testing.T) {
	t.Helper()
	if mv.err != nil || mv.destErr != nil {
		t.Fatalf("source: %v; destination: %v", mv.err, mv.destErr)
	}
	if mv.report.Result != ResultCompleted || mv.report.Owner != OwnerDestination {
		t.Errorf("result %q, owner %q", mv.report.Result, mv.report.Owner)
	}
	if mv.source.resumed.Load() != 0 {
		t.Error("the source ran the guest again")
	}
	mv.dest.mem.Wait()
	if n := mv.dest.wrong.Load(); n != 0 {
		t.Errorf("the guest read %d wrong pages", n)
	}
	equalMemory(t, mv.source, mv.dest)
}

func TestPostcopyMovesEveryPageWhileTheGuestReadsThem(t *testing.T) {
	mv := migrate(t, Options{Verify: true}, func(_, dst *testMachine) { dst.guests = 2 }, 32<<20, 4096, 1<<20)
	mv.completed(t)
	r := mv.report
	if r.Verified == nil || !*r.Verified {
		t.Errorf("verified: %v, error %q", r.Verified, r.Error)
	}
	if got := r.RAM.PagesZero + r.RAM.PagesPostcopy; got != r.RAM.PagesTotal {
		t.Errorf("%d pages sent, %d in all", got, r.RAM.PagesTotal)
	}
	if r.Faults.Count == 0 || r.Faults.Requested == 0 || len(r.VCPUBlocktimeNS) != 2 {
		t.Errorf("no faults in the report: %+v", r)
	}
	if mv.dest.device.text != mv.source.device.text {
		t.Errorf("device state %q, want %q", mv.dest.device.text, mv.source.device.text)
	}
	if got := mv.dest.seen.Load(); got != 2*(32<<20)/4096 {
		t.Errorf("the guest read %d pages", got)
	}
	b, _ := json.Marshal(r)
	t.Log(string(b))
}

func TestADeviceMayReadGuestMemoryWhileItIsLoaded(t *testing.T) {
	mv := migrate(t, Options{}, func(src, dst *testMachine) {
		dst.device.touch = func() error {
			m := memslot.NewMemory(nullRegions{}, 4)
			b := dst.blocks[0]
			if err := m.Map(0, 0, b, 0, b.Size(), 0); err != nil {
				return err
			}
			var page [8192]byte
			return m.ReadAt(page[:], b.Size()-8192)
		}
	}, 4<<20)
	mv.completed(t)
	if mv.report.DeviceBlocktimeNS == 0 || mv.report.Faults.Requested == 0 {
		t.Errorf("the report does not know of the device's wait: %+v", mv.report)
	}
}

// dial opens a raw connection to a destination.
func dial(t *testing.T, a Address) net.Conn {
	t.Helper()
	c, err := net.Dial(a.Network, a.Target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestAGuestThatEndsDuringPostcopyEndsTheMigrationWell(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src := newTestMachine(t, 64<<20)
	src.fill(t)
	build, built := builderOf(t, func(dst *testMachine) { close(dst.done) })
	addr, d, done := destination(t, ctx, build)
	s, err := NewSource(src, addr, Options{Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := s.Run(ctx)
	if err != nil || rep.Result != ResultCompleted {
		t.Errorf("source: result %q, %v", rep.Result, err)
	}
	if err := <-done; err != nil {
		t.Errorf("destination: %v", err)
	}
	built().Stop()
	d.pager.Load().abort(errTest)
}
