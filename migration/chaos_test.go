package migration

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"microvm/migration/tlstest"
)

var (
	chaosSeeds = flag.Uint64("chaos.seeds", 200, "how many storms to move a machine through")
	chaosFirst = flag.Uint64("chaos.first", 0, "the first of their seeds; with -chaos.seeds=1, the one to look at again")
)

// TestThroughAnyStormTheGuestHasOneOwnerAndItsMemory moves a machine through a
// network that cuts, truncates, delays, holds back and damages, while persons
// call it off, and demands one of two ends: all of it is at the destination, or
// it runs at the source with its memory as it was. A migration that is left
// paused has to be recoverable, and is recovered. Every fourth goes within TLS,
// where any byte that is damaged breaks its connection.
func TestThroughAnyStormTheGuestHasOneOwnerAndItsMemory(t *testing.T) {
	ends := map[string]int{}
	dir := tlstest.NewCA(t).Folder()
	for seed := *chaosFirst; seed < *chaosFirst+*chaosSeeds; seed++ {
		fine := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := newChaos(t, seed, dir)
			end := c.run()
			if c.storm.secure {
				end += " within TLS"
			}
			ends[end]++
			met, _ := c.storm.story()
			t.Logf("%s: %s; %s", c, met, end)
		})
		if !fine {
			t.Fatalf("again: go test ./migration -run %s -v -chaos.seeds=1 -chaos.first=%d", t.Name(), seed)
		}
	}
	t.Logf("%v", ends)
}

// chaos is one migration through a storm.
type chaos struct {
	t      *testing.T
	rng    *rand.Rand
	opt    Options
	ledger *ledger
	memory *testMachine // the source's
	source *Source
	dest   *receiver
	built  func() *testMachine
	storm  *storm
	cancel time.Duration // after which the source's person calls it off; 0: never
	giveUp time.Duration // likewise the destination's
}

func (c *chaos) String() string {
	return fmt.Sprintf("%s over %d, compression %s, checksums %v, from %s on, verify %v, recover %v, cancel %v, give up %v",
		c.opt.Mode, c.opt.Connections, c.opt.Compress, c.opt.Checksum, c.storm.from, c.opt.Verify, c.opt.Recover, c.cancel, c.giveUp)
}

// busySide is a busyMachine whose ledger knows of its pauses.
type busySide struct {
	*busyMachine
	l *ledger
}

func (m busySide) side() sourceSide { return sourceSide{m.testMachine, m.l} }

func (m busySide) Pause(ctx context.Context) error {
	return errors.Join(m.busyMachine.Pause(ctx), m.side().Pause(ctx))
}

func (m busySide) Resume() error {
	defer m.work()
	return m.side().Resume()
}

func (m busySide) HandOver() error { return m.side().HandOver() }

func (m busySide) TakeBack() error { return m.side().TakeBack() }

// newChaos draws a migration; dir has the files for one within TLS.
func newChaos(t *testing.T, seed uint64, dir string) *chaos {
	secure := seed%4 == 3
	c := &chaos{t: t, rng: rand.New(rand.NewPCG(seed, 3)), ledger: &ledger{source: true}}
	c.opt = Options{
		Mode: []Mode{ModePostcopy, ModePostcopy, ModeHybrid, ModePrecopy}[c.rng.IntN(4)], Rounds: 2,
		Recover: 30 * time.Second, Log: quietLog(t),
	}
	if c.rng.IntN(3) == 0 {
		c.opt.Recover = time.Duration(c.rng.IntN(80)) * time.Millisecond
	}
	c.opt.Verify = c.rng.IntN(2) == 0
	if c.rng.IntN(8) == 0 {
		c.cancel = time.Duration(1+c.rng.IntN(20000)) * time.Microsecond
	}
	if c.rng.IntN(8) == 0 {
		c.giveUp = time.Duration(1+c.rng.IntN(20000)) * time.Microsecond
	}
	guests := c.rng.IntN(3)
	build, built := builderOf(t, func(m *testMachine) { m.guests = guests })
	c.built = built
	there := DestinationOptions{Recover: time.Minute}
	if secure {
		c.opt.TLS, there.TLS = sourceTLS(t, dir, ""), destTLS(t, dir)
	}
	c.dest = receiveWith(t, c.ledger, there, func(ctx context.Context, config []byte) (DestinationMachine, error) {
		if _, err := build(ctx, config); err != nil {
			return nil, err
		}
		return destSide{built(), c.ledger}, nil
	})
	var addr Address
	from, troubles := drawTroubles(c.rng, secure)
	c.storm, addr = newStorm(t, c.dest.addr, from, troubles)

	var machine SourceMachine
	if c.opt.Mode == ModePostcopy {
		c.memory = newTestMachine(t, sentSizes...)
		c.memory.fill(t)
		machine = sourceSide{c.memory, c.ledger}
	} else {
		busy := newBusyMachine(t, 1<<20, 1<<19, 200*time.Microsecond)
		c.memory = busy.testMachine
		machine = busySide{busy, c.ledger}
	}
	c.opt.Connections = 1 + 3*c.rng.IntN(2)
	c.opt.Compress = []Codec{CodecNone, CodecNone, CodecS2, CodecZstd}[c.rng.IntN(4)]
	c.opt.Checksum = c.rng.IntN(2) == 0
	var err error
	if c.source, err = NewSource(machine, addr, c.opt); err != nil {
		t.Fatal(err)
	}
	return c
}

// chaosPatience is how long anything may take.
const chaosPatience = time.Minute

// run moves the machine, and checks what has become of it. It returns what that
// is.
func (c *chaos) run() (end string) {
	t := c.t
	defer c.dest.kill()
	var rep *Report
	var err error
	for resumed := false; ; resumed = true {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if resumed {
				rep, err = c.source.Resume(t.Context(), Address{}, chaosPatience)
			} else {
				rep, err = c.source.Run(t.Context())
			}
		}()
		if !resumed && c.cancel > 0 {
			defer time.AfterFunc(c.cancel, func() { _ = c.source.Cancel() }).Stop()
		}
		if !resumed && c.giveUp > 0 {
			defer time.AfterFunc(c.giveUp, func() { c.dest.dest.GiveUp() }).Stop()
		}
		select {
		case <-ended:
		case <-time.After(chaosPatience):
			t.Errorf("it hangs: source in phase %s, destination in phase %s", c.source.Phase(), c.dest.dest.Phase())
			return "hangs"
		}
		if !errors.As(err, new(*PausedError)) {
			break
		}
		if resumed {
			t.Errorf("paused, and not to be recovered: %v", err)
			return "lost"
		}
		c.ledger.change(func() {
			if c.ledger.source {
				t.Error("paused, and the source runs it")
			}
		})
		// A person has mended the network.
		c.storm.abate()
		end = "paused, then "
	}
	if err == nil {
		return end + c.arrived(rep)
	}
	return end + c.stayed(rep, err)
}

// arrived checks that all of the guest is at the destination.
func (c *chaos) arrived(rep *Report) (end string) {
	t := c.t
	select {
	case <-c.dest.ended:
	case <-time.After(time.Second):
		// END was lost: it would wait for the source to come again.
		c.dest.cancel()
	}
	if err := c.dest.wait(); err != nil {
		t.Errorf("the source completed, the destination says: %v", err)
		return "lost"
	}
	dest := c.built()
	dest.mem.Wait()
	l := c.ledger
	if rep.Result != ResultCompleted || rep.Owner != OwnerDestination || l.both || l.source || !l.dest || l.ran != 1 || l.stopped != 0 {
		t.Errorf("completed: result %s, owner %s, %+v", rep.Result, rep.Owner, l)
	}
	_, damaged := c.storm.story()
	same := sameMemory(t, c.memory, dest)
	switch verified := rep.Verified != nil && *rep.Verified; {
	case c.opt.Verify && rep.Verified == nil:
		t.Errorf("not verified: %q", rep.Error)
	case c.opt.Verify && verified != same:
		t.Errorf("verified %v, memory the same: %v", verified, same)
	case same && dest.wrong.Load() == 0:
		return "completed"
	case !damaged || c.opt.Checksum:
		t.Errorf("memory the same: %v; the guest read %d wrong pages", same, dest.wrong.Load())
	case c.opt.Verify:
		return "damaged page found"
	}
	// Nobody asked for what finds damage in a page itself.
	return "damaged page not found"
}

// stayed checks that the guest runs at the source, as it was.
func (c *chaos) stayed(rep *Report, err error) (end string) {
	t := c.t
	c.dest.dest.GiveUp()
	derr := c.dest.kill()
	l := c.ledger
	if rep.Owner != OwnerSource || l.both || !l.source || l.ran != 0 || l.paused != l.resumed || l.handed != l.taken {
		t.Errorf("the source says %v: owner %s, %+v", err, rep.Owner, l)
	}
	if derr == nil {
		t.Errorf("the source says %v, the destination has received the guest", err)
	}
	if c.opt.Mode == ModePostcopy {
		as := newTestMachine(t, sentSizes...)
		as.fill(t)
		if !sameMemory(t, c.memory, as) {
			t.Error("the source's memory has changed")
		}
	}
	if errors.Is(err, ErrCancelled) {
		return "cancelled"
	}
	return "stayed"
}

// sameMemory tells whether both machines' memory is the same.
func sameMemory(t *testing.T, a, b *testMachine) bool {
	t.Helper()
	for i := range a.blocks {
		am, aerr := a.blocks[i].View(0, a.blocks[i].Size())
		bm, berr := b.blocks[i].View(0, b.blocks[i].Size())
		if err := errors.Join(aerr, berr); err != nil {
			t.Error(err)
			return false
		}
		if !bytes.Equal(am, bm) {
			return false
		}
	}
	return true
}
