package migration

import (
	"context"
	"errors"
	"fmt"
	"time"

	"microvm/migration/wire"
)

// handOver is the downtime: it pauses the guest here and gives it up, so that
// it runs there. An error means that the guest runs here again.
//
// last does what precopy has left to do once the guest has stopped.
func (s *Source) handOver(ctx context.Context, l *link, last func() error) (sums *checksummer, err error) {
	s.phase.Store(PhaseDevice)
	s.collect = holdCollector()
	d := &s.report.Downtime
	s.stopping = time.Now()
	if err := s.machine.Pause(ctx); err != nil {
		return nil, fmt.Errorf("pause the VM: %w", err)
	}
	d.PauseNS = int64(time.Since(s.stopping))
	s.opt.Events.downtime("pause", d.PauseNS)
	defer func() {
		if err == nil {
			return
		}
		sums.stop()
		s.committed.CompareAndSwap(runWritten, takenBack)
		if rerr := s.machine.Resume(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("resume the VM after the failed migration: %w", rerr))
		}
	}()
	if err := last(); err != nil {
		return nil, err
	}
	saving := time.Now()
	pack, err := s.pack(ctx, l)
	if err != nil {
		return nil, err
	}
	d.SaveNS = int64(time.Since(saving))
	s.opt.Events.downtime("save", d.SaveNS)
	l.serving.Store(true)
	if err := s.sendMain(l, pack); err != nil {
		return nil, l.explain(err)
	}
	if err := s.sendParts(ctx, l); err != nil {
		return nil, err
	}
	loadNanos, err := await(ctx, l, l.loaded)
	if err != nil {
		return nil, err
	}
	d.LoadNS = int64(loadNanos)
	s.opt.Events.downtime("load", d.LoadNS)
	if s.opt.Verify {
		sums = newChecksums(s.machine.Blocks())
		sums.start()
	}
	// From here on there is no way back by ourselves.
	if !s.committed.CompareAndSwap(undecided, runWritten) {
		return sums, ErrCancelled
	}
	if !l.detach() {
		return sums, context.Cause(ctx)
	}
	if err := s.machine.HandOver(); err != nil {
		return sums, err
	}
	if written, err := s.sendRun(l); !written {
		// The destination never gets the rest of it, so it never runs.
		return sums, errors.Join(err, s.machine.TakeBack())
	}
	s.report.Owner = OwnerDestination
	return sums, nil
}

// sendRun writes POSTCOPY_RUN. Whether all of it was written decides who owns
// the guest.
func (s *Source) sendRun(l *link) (written bool, err error) {
	run := wire.Message(wire.TypeRun, nil)
	n, err := l.main.Write(run)
	s.ram.count(mainChannel, int64(n))
	if n < len(run) {
		return false, fmt.Errorf("POSTCOPY_RUN: %w", l.explain(err))
	}
	return true, nil
}

// pack saves devices into one PACKAGED message: every one, but that those whose
// state comes in parts are only named if there are channels for the parts.
func (s *Source) pack(ctx context.Context, l *link) ([]byte, error) {
	blob, err := packDevices(ctx, s.machine, l.carriesPartsOf)
	if err != nil {
		return nil, err
	}
	return wire.Message(wire.TypePackaged, blob), nil
}

// packDevices saves devices into the body of a PACKAGED message, with nothing but
// the names of those that go elsewhere.
func packDevices(ctx context.Context, m Machine, elsewhere func(Snapshotter) bool) ([]byte, error) {
	blob := wire.Message(wire.TypeListen, nil)
	add := func(state wire.DeviceState) error { blob = state.Append(blob); return nil }
	for _, d := range m.Devices() {
		if elsewhere(d) {
			_ = add(wire.DeviceState{ID: d.ID(), Version: d.Version(), Flags: wire.StateByMulti})
		} else if err := saveDevice(ctx, d, add); err != nil {
			return nil, err
		}
	}
	if limit, _ := wire.TypePackaged.MaxBody(); len(blob) > int(limit) {
		return nil, fmt.Errorf("device state of %d bytes, at most %d allowed", len(blob), limit)
	}
	return blob, nil
}
