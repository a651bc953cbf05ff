package balloon

import (
	"context"
	"maps"
	"testing"
	"time"

	"microvm/devices/virtio/virtiotest"
)

// TestGuestTellsItsFiguresWhenTheyAreWanted, and has its buffer back only then.
func TestGuestTellsItsFiguresWhenTheyAreWanted(t *testing.T) {
	r := newRig(t, Options{}, 0)
	r.balloon.Refresh(t.Context()) // there is nobody to ask yet
	if s := r.balloon.Stats(); s.Guest != nil || s.GuestAt != 0 {
		t.Errorf("it knows of %+v", s)
	}
	q := r.queues[2]
	q.Add(arena, 0, -1, virtiotest.Buf{Data: figures(4, 1000, 5, 2000, 999, 3)})
	q.Kick()
	r.knows(map[string]uint64{"free_bytes": 1000, "total_bytes": 2000})
	if _, _, _, back := q.Done(); back {
		t.Error("the buffer came back, and nobody had asked")
	}
	done := make(chan struct{})
	go func() { r.balloon.Refresh(t.Context()); close(done) }()
	q.Wait()
	q.Add(arena, 0, -1, virtiotest.Buf{Data: figures(4, 900, 10, 1)})
	q.Kick()
	<-done
	r.knows(map[string]uint64{"free_bytes": 900, "oom_kills": 1})

	// A driver that does not answer holds nobody up for longer than that.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r.balloon.Refresh(ctx)
	if ctx.Err() == nil {
		t.Error("it did not wait for the answer")
	}
	q.Wait()
}

// TestOldFiguresAreMadeAnewForWhoAsks, and not for who looks.
func TestOldFiguresAreMadeAnewForWhoAsks(t *testing.T) {
	r := newRig(t, Options{}, 0)
	q := r.queues[2]
	q.Add(arena, 0, -1, virtiotest.Buf{Data: figures(4, 1)})
	q.Kick()
	r.knows(map[string]uint64{"free_bytes": 1})
	r.balloon.Ask()
	g := &r.balloon.guest
	g.mu.Lock()
	g.at = g.at.Add(-time.Minute)
	g.mu.Unlock()
	if _, _, _, back := q.Done(); back {
		t.Error("figures of just now were made anew")
	}
	if s := r.balloon.Stats(); s.GuestAt < time.Minute {
		t.Errorf("their age is %v", s.GuestAt)
	}
	if c := r.balloon.Counts(); c.Gauges["guest_free_bytes"] != 1 || c.Of("statistics").Requests != 1 {
		t.Errorf("it counts %+v", c)
	}
	if _, _, _, back := q.Done(); back {
		t.Error("figures were made anew for who only looks")
	}
	r.balloon.Ask()
	q.Wait()
}

// TestBufferOfFiguresComesBackWhereTheDeviceRests, so that it can move; and a
// driver that gives several has all but one.
func TestBufferOfFiguresComesBackWhereTheDeviceRests(t *testing.T) {
	r := newRig(t, Options{}, 0)
	q := r.queues[2]
	for i := range uint64(3) {
		q.Add(arena+i*PageSize, 0, -1, virtiotest.Buf{Data: figures(4, i)})
	}
	q.Kick()
	q.Wait()
	q.Wait()
	r.mmio.Device().Hold()
	q.Wait()
	if _, err := r.mmio.Save(); err != nil {
		t.Error(err)
	}
	q.Add(arena, 0, -1, virtiotest.Buf{Data: figures(4, 50)})
	r.mmio.Device().Release()
	r.knows(map[string]uint64{"free_bytes": 50})
	r.balloon.Refresh(expired(t))
	q.Wait()
}

// knows waits until the guest's figures are these.
func (r *rig) knows(want map[string]uint64) {
	r.T.Helper()
	g := &r.balloon.guest
	for late := time.After(10 * time.Second); ; {
		g.mu.Lock()
		fresh := g.fresh
		g.mu.Unlock()
		have := r.balloon.Stats().Guest
		if maps.Equal(have, want) {
			return
		}
		select {
		case <-fresh:
		case <-late:
			r.T.Fatalf("it knows of %v, want %v", have, want)
		}
	}
}

// expired is a context that has ended.
func expired(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
