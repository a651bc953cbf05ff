package migration

import (
	"errors"
	"testing"
	"time"

	"microvm/migration/wire"
)

func TestCompleteBeforeRunIsNoSuccess(t *testing.T) {
	for name, reach := range map[string]func(*rawSource){
		"at first": func(*rawSource) {}, "advised": (*rawSource).advised, "loaded": (*rawSource).loaded,
	} {
		t.Run(name, func(t *testing.T) {
			r := receive(t, &ledger{}, nil)
			s := newRawSource(t, r.addr)
			reach(s)
			s.send(wire.Complete{}.Append(nil))
			says(t, r.wait(), "COMPLETE", "in phase")
		})
	}
}

// Pages that were announced and will not come because their channel is gone.
func TestCompleteWithPagesMissingIsNoSuccess(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Recover: time.Hour}, buildOwned(t, l, nil))
	s := newRawSource(t, r.addr)
	s.running()
	s.send(zeros(0, 0, 256), wire.Complete{ZeroPages: 257}.Append(nil))
	s.urgent.Close() // with the last page
	r.reach(PhasePaused)
	err := r.kill()
	var lost *LostError
	if !errors.As(err, &lost) {
		t.Errorf("ended with %v", err)
	}
}
