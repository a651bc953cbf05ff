package main

import (
	"log/slog"
	"sync"
	"time"

	"microvm/migration"
)

// arrivingEvery is how often receive looks how far it is.
const arrivingEvery = 200 * time.Millisecond

// logAbove has what is logged from now on stand above the line that shows how a
// VM arrives, if there is one.
func (r *reception) logAbove() {
	live, ok := r.show.(*liveProgress)
	switch {
	case ok && r.session.stdio:
		slog.SetDefault(slog.New(r.session.log.handler(lineEnds{live}, nil)))
	case ok:
		slog.SetDefault(slog.New(r.session.log.handler(live, nil)))
	}
}

// follow shows how a VM arrives, from when its source has come until all of it
// is here, or until what it returns is called.
func (r *reception) follow(status func() migration.Status) (stop func()) {
	if _, nobody := r.show.(noProgress); nobody {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer r.show.end()
		tick := time.NewTicker(arrivingEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-over:
				return
			}
			switch s := status(); s.Phase {
			case migration.PhaseSetup: // nobody has come
			case migration.PhaseCompleted, migration.PhaseFailed:
				return
			default:
				r.show.update(s)
			}
		}
	}()
	return sync.OnceFunc(func() {
		close(over)
		<-ended
	})
}
