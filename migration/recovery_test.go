package migration

import (
	"context"
	"errors"
	"flag"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"microvm/migration/wire"
)

var seeds = flag.Int("migration.seeds", 40, "how many random ways of cutting connections to try")

// cutter stands between a source and a destination and cuts connections, all of
// them or one, whenever a random number of bytes has passed, a given number of
// times.
type cutter struct {
	middle

	mu    sync.Mutex
	rng   *rand.Rand
	reach int64 // bytes between two cuts, at most
	cuts  int   // still to be made
	left  int64 // bytes until the next
	conns []net.Conn
}

func newCutter(t *testing.T, target Address, seed uint64, cuts int, reach int64) (*cutter, Address) {
	t.Helper()
	c := &cutter{rng: rand.New(rand.NewPCG(seed, 2)), cuts: cuts, reach: reach}
	c.left = c.rng.Int64N(reach)
	return c, c.stand(t, target, c.carry, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.closeAll()
	})
}

// carry passes one connection's bytes on, both ways.
func (c *cutter) carry(near, far net.Conn) {
	c.mu.Lock()
	c.conns = append(c.conns, near, far)
	c.mu.Unlock()
	c.served.Go(func() { c.pass(far, near) })
	c.pass(near, far)
}

func (c *cutter) pass(dst, src net.Conn) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		pass := c.spend(n, dst, src)
		if _, werr := dst.Write(buf[:pass]); err != nil || werr != nil || pass < n {
			return
		}
	}
}

// spend accounts for n bytes of one connection and tells how many of them may
// pass; it cuts when the next cut is due.
func (c *cutter) spend(n int, dst, src net.Conn) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cuts == 0 || int64(n) < c.left {
		c.left -= int64(n)
		return n
	}
	pass := int(c.left)
	c.cuts--
	c.left = c.rng.Int64N(c.reach)
	// What was to pass before the cut does, in this direction; the other
	// loses what is in its buffer, as on a real network.
	all := c.rng.IntN(3) > 0
	time.AfterFunc(0, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		dst.Close()
		src.Close()
		if all {
			c.closeAll()
		}
	})
	return pass
}

func (c *cutter) closeAll() {
	for _, conn := range c.conns {
		conn.Close()
	}
	c.conns = nil
}

// TestCutAnywhereEndsInOneOfTwoWays: however often and wherever connections are
// cut, in the end either the whole VM is at the destination, verified, or it
// runs at the source with its memory as it was.
func TestCutAnywhereEndsInOneOfTwoWays(t *testing.T) {
	for seed := range uint64(*seeds) {
		rng := rand.New(rand.NewPCG(seed, 1))
		cuts := 1 + rng.IntN(4)
		// Some cut in the first bytes, where the handshakes are.
		reach := int64(1) << (9 + rng.IntN(14))
		connections := 1 + 3*rng.IntN(2)
		completed := cutRun(t, seed, cuts, reach, connections, "")
		if testing.Verbose() {
			t.Logf("seed %d: %d cuts within %d bytes, %d connections: completed %v", seed, cuts, reach, connections, completed)
		}
		if t.Failed() {
			t.Fatalf("seed %d: %d cuts within %d bytes, %d connections", seed, cuts, reach, connections)
		}
	}
}

// cutRun is one run; tlsDir is the folder for TLS, "" is without.
func cutRun(t *testing.T, seed uint64, cuts int, reach int64, connections int, tlsDir string) (completed bool) {
	src := newTestMachine(t, 4<<20, wire.PageSize)
	if connections > 1 {
		src.parts = []*partDevice{{id: "gpu0", saves: 30}, {id: "gpu1", saves: 30}}
	}
	build, built := builderOf(t, func(dst *testMachine) {
		dst.guests = 2
		for _, d := range src.parts {
			dst.parts = append(dst.parts, &partDevice{id: d.id})
		}
	})
	return cutMove(t, seed, cuts, reach, connections, tlsDir, src, build, built)
}

// cutMove moves src to what build builds.
func cutMove(t *testing.T, seed uint64, cuts int, reach int64, connections int, tlsDir string, src *testMachine, build Builder, built func() *testMachine) (completed bool) {
	const recover = 30 * time.Second
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	src.fill(t)
	ln, err := Listen(ctx, Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	there := DestinationOptions{Recover: recover, Log: quietLog(t)}
	here := Options{Verify: true, Connections: connections, Recover: recover, Log: quietLog(t)}
	if tlsDir != "" {
		there.TLS, here.TLS = destTLS(t, tlsDir), sourceTLS(t, tlsDir, "")
	}
	d := NewDestination(build, there)
	received := make(chan error, 1)
	go func() { received <- d.Receive(ctx, ln) }()
	_, addr := newCutter(t, ListenAddress(ln), seed, cuts, reach)
	s, err := NewSource(src, addr, here)
	if err != nil {
		t.Fatal(err)
	}
	rep, err := s.Run(ctx)
	var paused *PausedError
	switch {
	case err == nil:
		if err := <-received; err != nil {
			t.Errorf("the source completed, the destination says: %v", err)
			return false
		}
		(&move{source: src, dest: built(), report: rep}).completed(t)
		if rep.Verified == nil || !*rep.Verified {
			t.Errorf("not verified: %q", rep.Error)
		}
		for _, d := range built().parts {
			d.loaded(t, 30)
		}
		return true
	case errors.As(err, &paused):
		t.Errorf("paused, with a destination that is there: %v", err)
	default:
		if src.paused.Load() != src.resumed.Load() || src.handedOver.Load() != 0 {
			t.Errorf("the source does not run: %d pauses, %d resumes, handed over %d", src.paused.Load(), src.resumed.Load(), src.handedOver.Load())
		}
		d.GiveUp()
		if err := <-received; err == nil {
			t.Error("the source runs the VM and the destination has received it")
		}
		if b := built(); b != nil && b.running.Load() {
			t.Error("both sides run")
		}
		var sizes []uint64
		for _, b := range src.blocks {
			sizes = append(sizes, b.Size())
		}
		blank := newTestMachine(t, sizes...)
		blank.fill(t)
		equalMemory(t, src, blank)
	}
	return false
}

// TestARunThatWasLostIsSentAgain cuts between POSTCOPY_RUN and RUNNING: the
// destination never got RUN, and the handshake settles it.
func TestARunThatWasLostIsSentAgain(t *testing.T) {
	for _, point := range []struct {
		name string
		back bool
	}{{"POSTCOPY_RUN", false}, {"RUNNING", true}} {
		t.Run(point.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			src := newTestMachine(t, 1<<20)
			src.fill(t)
			build, built := builderOf(t, nil)
			ln, err := Listen(ctx, Address{"tcp", "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			d := NewDestination(build, DestinationOptions{Recover: time.Minute, Log: quietLog(t)})
			received := make(chan error, 1)
			go func() { received <- d.Receive(ctx, ln) }()
			swallow := newSwallower(t, ListenAddress(ln), point.name, point.back)
			s, err := NewSource(src, swallow, Options{Recover: time.Minute, Log: quietLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			rep, err := s.Run(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Recoveries != 1 || rep.DowntimeNS == 0 {
				t.Errorf("recoveries %d, downtime %d", rep.Recoveries, rep.DowntimeNS)
			}
			if err := <-received; err != nil {
				t.Error(err)
			}
			(&move{source: src, dest: built(), report: rep}).completed(t)
		})
	}
}

// newSwallower passes connections on, but for the first message of one name
// and direction on a main channel: it and every connection are lost.
func newSwallower(t *testing.T, target Address, name string, back bool) Address {
	lost := false
	var p *proxy
	p, addr := newProxy(t, target, func(at point, message []byte) (int, bool) {
		if lost || at.leg.back != back || at.name != name {
			return len(message), false
		}
		lost = true
		go p.drop()
		return 0, false
	})
	return addr
}

// drop closes every connection, and lets new ones come.
func (p *proxy) drop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}
