package migration

import (
	"context"
	"fmt"
	"time"

	"microvm/migration/wire"
)

// packaged begins postcopy and has the devices loaded, by a goroutine of their
// own: loading may touch a page that is still at the source, and this
// one has to be free to place it.
func (in *inbound) packaged(body []byte) error {
	d := in.d
	if d.Phase() != PhaseAdvise {
		return protocolError("PACKAGED", "in phase %s", d.Phase())
	}
	began := time.Now()
	states, err := unpack(body)
	if err != nil {
		return err
	}
	parts, err := newPartsIn(d.machine, states, len(in.s.multi))
	if err != nil {
		return err
	}
	in.parts.Store(parts)
	d.pager.Load().listen(d.fail)
	d.phase.Store(PhaseListening)
	d.current.Store(in)
	in.workers.Go(in.urgent)
	in.workers.Go(in.watchFate)
	d.loaded = make(chan error, 1)
	parts.start(&d.loader)
	d.loader.Go(func() {
		err := load(d.machine, states, parts)
		parts.end(err)
		d.loaded <- err
		if err == nil {
			if !d.phase.CompareAndSwap(PhaseListening, PhaseLoaded) {
				return // the session has ended, and Receive with it
			}
			// In this order: who declines looks at the phase after it
			// has decided the fate.
			if d.fate.Load() == fateGivenUp {
				in.fail(&fatalError{context.Cause(d.givenUp)})
				return
			}
			took := uint64(time.Since(began))
			d.opt.Events.downtime("load", int64(took))
			err = in.back.send(func(b []byte) []byte { return wire.AppendLoaded(b, took) })
		}
		if err != nil {
			in.fail(err)
		}
	})
	return nil
}

// request sends requests for pages. Without a connection they are dropped:
// what is missing is asked for again when there is one.
func (d *Destination) request(pages []pageRequest) (written bool) {
	in := d.current.Load()
	if in == nil {
		return false
	}
	err := in.back.request(pages)
	if err != nil {
		in.fail(fmt.Errorf("return path: request pages: %w", err))
	}
	return err == nil
}

// fail notes that pages cannot be fetched any more, by any connection.
func (d *Destination) fail(err error) {
	err = &fatalError{err}
	if d.decline(err) && d.owed() {
		return // watchFate tells the source
	}
	select {
	case d.fatal <- err:
	default:
	}
	if in := d.current.Load(); in != nil {
		in.fail(err)
	}
}

// run makes this side the owner.
func (in *inbound) run() error {
	d := in.d
	began := time.Now()
	if d.Phase() != PhaseLoaded {
		return protocolError("POSTCOPY_RUN", "in phase %s", d.Phase())
	}
	if err := <-d.loaded; err != nil {
		return err
	}
	if !d.fate.CompareAndSwap(fateOpen, fateRan) {
		return nil // the source has been told, or is about to be
	}
	if err := d.machine.Run(); err != nil {
		// No vCPU has run: it is as if the source had been told before.
		d.fate.Store(fateGivenUp)
		d.giveUp(fmt.Errorf("start the vCPUs: %w", err))
		return nil
	}
	now := time.Now()
	d.pager.Load().run(d.machine.VCPUThreads())
	d.phase.Store(PhaseRunning)
	d.opt.Events.downtime("resume", int64(now.Sub(began)))
	err := in.back.send(func(b []byte) []byte {
		return wire.AppendRunning(b, wire.Running{Time: uint64(now.UnixNano()), ResumeNanos: uint64(now.Sub(began))})
	})
	if err != nil {
		return err
	}
	in.watch()
	return nil
}

// watchFate tells a source that may have written POSTCOPY_RUN that the VM will
// never run here. It answers by CANCEL, or comes back if it did not hear it.
func (in *inbound) watchFate() {
	select {
	case <-in.d.givenUp.Done():
		if in.d.owed() {
			in.decline()
		}
	case <-in.over:
	}
}

func (in *inbound) decline() {
	in.sayFailed(context.Cause(in.d.givenUp))
	in.s.main.SetReadDeadline(time.Now().Add(drainTimeout))
}

// watch looks after a guest that runs here while pages are missing.
func (in *inbound) watch() {
	in.workers.Go(in.statistics)
	in.workers.Go(in.watchGuest)
}

// watchGuest ends the migration early if the guest ends: it needs no more
// pages. What is on its way is read, up to END.
func (in *inbound) watchGuest() {
	select {
	case <-in.d.machine.Done():
		in.sayShut()
	case <-in.over:
	}
}
