package blk

import (
	"errors"
	"fmt"
	"time"

	"microvm/devices/virtio"
)

// settle writes a request's status, and counts it. written is what to push the
// chain with; it is not to be pushed if ok is false.
func (d *Disk) settle(r *request, kind uint32, bytes uint64, err error) (written uint32, ok bool) {
	r.status[0] = statusOK
	switch {
	case errors.Is(err, errUnsupported):
		r.status[0] = statusUnsupported
	case err != nil:
		r.status[0] = statusError
	}
	d.counts.add(kind, bytes, time.Since(r.began), err)
	if err != nil {
		d.complain(err)
	} else {
		written = uint32(r.chain.WriteLen) // the status comes last
	}
	if err := r.chain.WriteAt(r.status[:], r.chain.WriteLen-1); err != nil {
		r.queue.Fail(fmt.Errorf("write a request's status: %w", err))
		return 0, false
	}
	return written, true
}

// answers are requests that are done and that the driver has not been told of,
// so that it is interrupted once for all that are done at the same time.
type answers struct {
	requests []*request
	used     [MaxQueues][]virtio.Used
}

// add takes a request that has been done without an error.
func (a *answers) add(d *Disk, r *request, kind uint32, bytes uint64) {
	if written, ok := d.settle(r, kind, bytes, nil); ok {
		i := r.queue.Index()
		a.used[i] = append(a.used[i], r.chain.Used(written))
	}
	a.requests = append(a.requests, r)
}

// send gives them to the driver.
func (a *answers) send(d *Disk) {
	for _, r := range a.requests {
		i := r.queue.Index()
		// A driver that offers a chain twice has more under way than its
		// queue has entries.
		for all := a.used[i]; len(all) > 0; {
			n := min(len(all), r.queue.Size())
			if err := r.queue.PushAll(all[:n]); err != nil {
				r.queue.Fail(err)
				break
			}
			all = all[n:]
		}
		a.used[i] = a.used[i][:0]
	}
	for _, r := range a.requests {
		d.release(r)
	}
	a.requests = a.requests[:0]
}
