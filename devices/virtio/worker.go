package virtio

// Hold brings the device to rest: when it returns, every chain that was taken
// has been pushed, no goroutine of the device touches guest memory, and none
// will until Release. What the driver makes available meanwhile stays where it
// is. Holding twice is once.
func (d *Device) Hold() {
	d.life.Lock()
	defer d.life.Unlock()
	d.held = true
	d.stop()
}

// Release undoes Hold. Every queue is looked at, whether or not there is a
// notification.
func (d *Device) Release() {
	d.life.Lock()
	defer d.life.Unlock()
	d.held = false
	d.start()
}

// start starts the workers if the device is to run and does not. life is held.
func (d *Device) start() {
	d.mu.Lock()
	status, features := d.status, d.features
	d.mu.Unlock()
	if d.held || d.running || status&(statusDriverOK|statusNeedsReset) != statusDriverOK {
		return
	}
	d.running = true
	d.backend.Start(features)
	for _, q := range d.queues {
		q.begin(features) // all before the first worker, which may fail them all
	}
	for i, q := range d.queues {
		if q.setup.ready {
			d.workers.Go(func() { d.work(q, d.events[i]) })
		}
	}
}

// stop ends the workers and waits for what is under way. life is held.
func (d *Device) stop() {
	if !d.running {
		return
	}
	for i, q := range d.queues {
		q.halt.Store(true)
		// A worker that is not ready has nobody to read it: it does no harm.
		_ = d.events[i].signal()
	}
	d.interrupt()
	d.workers.Wait()
	d.backend.Drain()
	d.running = false
}

// interrupt has Serve return, once every queue is told to halt.
func (d *Device) interrupt() {
	if i, ok := d.backend.(Interrupter); ok {
		i.Interrupt()
	}
}

// work is a queue's worker.
func (d *Device) work(q *Queue, e *event) {
	for !q.halt.Load() {
		if err := d.serve(q); err != nil {
			d.fail(err)
			return
		}
		if e.wait() != nil {
			return // the device is closed
		}
		// Before it looks, so that no later Wake is missed.
		if !q.woken.Swap(false) {
			q.stats.kicks.Add(1)
		}
	}
}

// serve has the backend take chains until there is none and the driver knows
// that it has to say when there is one.
func (d *Device) serve(q *Queue) error {
	for more := true; more && !q.halt.Load(); {
		if err := q.busy(); err != nil {
			return err
		}
		if err := d.backend.Serve(q); err != nil {
			return err
		}
		var err error
		if more, err = q.arm(); err != nil {
			return err
		}
	}
	return nil
}

// fail has the driver reset the device, which until then takes no more chains.
// It may be called by any goroutine.
func (d *Device) fail(err error) {
	d.mu.Lock()
	first := d.status&(statusNeedsReset|statusDriverOK) == statusDriverOK
	if first {
		d.status |= statusNeedsReset
	}
	d.mu.Unlock()
	if !first {
		return
	}
	for _, q := range d.queues {
		q.halt.Store(true)
	}
	d.interrupt()
	d.log.Error("the device stands still until its driver resets it", "error", err)
	d.notifier.ConfigChanged()
}
