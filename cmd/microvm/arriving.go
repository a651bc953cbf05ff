package main

import (
	"log/slog"
	"sync"
	"time"

	"microvm/migration"
)

// arrivingEvery is how often receive looks how far it is.
const arrivingEvery = 200 * time.Millisecond

// follow shows how a VM arrives, from when its source has come until all of it
// is here, or until what it returns is called.
func (r *reception) follow(status func() migration.Status) (stop func()) {
	if _, nobody := r.show.(noProgress); nobody {
		return func() {}
	}
	if live, ok := r.show.(*liveProgress); ok {
		// What is logged meanwhile goes above the line.
		if r.session.stdio {
			slog.SetDefault(slog.New(slog.NewTextHandler(lineEnds{live}, nil)))
		} else {
			slog.SetDefault(slog.New(slog.NewTextHandler(live, nil)))
		}
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
