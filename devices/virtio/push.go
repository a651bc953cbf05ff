package virtio

import "encoding/binary"

// Push gives a chain back, with so many bytes written to the start of its
// writable part, and interrupts the driver if it wants that. What was written
// is visible to the driver before the chain is.
func (q *Queue) Push(c *Chain, written uint32) error {
	q.mu.Lock()
	var tell bool
	err := q.put(0, c.Used(written))
	if err == nil {
		tell, err = q.publish(1)
	}
	q.mu.Unlock()
	return q.pushed(tell, err)
}

// Used is a chain that is given back.
type Used struct {
	head    uint16
	written uint32
}

// Used is for PushAll: the chain itself can be used again at once.
func (c *Chain) Used(written uint32) Used { return Used{c.head, written} }

// PushAll gives several chains back, at most as many as the queue has entries,
// as Push does one: at the same time, and with one interrupt.
func (q *Queue) PushAll(used []Used) error {
	if len(used) == 0 {
		return nil
	}
	q.mu.Lock()
	var tell bool
	var err error
	for i, u := range used {
		if err = q.put(uint16(i), u); err != nil {
			break
		}
	}
	if err == nil {
		tell, err = q.publish(uint16(len(used)))
	}
	q.mu.Unlock()
	return q.pushed(tell, err)
}

// pushed interrupts the driver after a push. mu is not held.
func (q *Queue) pushed(tell bool, err error) error {
	if err != nil {
		return q.errorf("write the device area: %w", err)
	}
	if tell {
		q.stats.interrupts.Add(1)
		q.used(q)
	}
	return nil
}

// put writes a used element, offset elements after the last that the driver
// knows of. mu is held.
func (q *Queue) put(offset uint16, u Used) error {
	slot := uint64((q.usedIdx + offset) & (q.setup.size - 1))
	le := binary.LittleEndian
	le.PutUint32(q.element[:], uint32(u.head))
	le.PutUint32(q.element[4:], u.written)
	return q.mem.WriteAt(q.element[:], q.setup.device+ringEntries+usedSize*slot)
}

// publish shows the driver n more elements. mu is held.
func (q *Queue) publish(n uint16) (tell bool, err error) {
	// x86 keeps stores in order, and the compiler calls across packages: the
	// elements are there when the index says so.
	binary.LittleEndian.PutUint16(q.element[:], q.usedIdx+n)
	if err := q.mem.WriteAt(q.element[:2], q.setup.device+ringIdx); err != nil {
		return false, err
	}
	q.usedIdx += n
	q.fence.Add(1) // as in arm
	return q.wantsInterrupt()
}

// wantsInterrupt looks whether the driver asks to be told of what was pushed
// since it was last asked. mu is held.
func (q *Queue) wantsInterrupt() (bool, error) {
	at := q.setup.driver + ringFlags
	if q.eventIdx {
		at = q.setup.driver + ringEntries + 2*uint64(q.setup.size)
	}
	if err := q.mem.ReadAt(q.element[:2], at); err != nil {
		return false, err
	}
	v := binary.LittleEndian.Uint16(q.element[:])
	if !q.eventIdx {
		return v&availNoInterrupt == 0, nil
	}
	// The event index is among those that were pushed (section 2.7.10).
	tell := q.tellFirst || q.usedIdx-v-1 < q.usedIdx-q.lastTold
	q.lastTold, q.tellFirst = q.usedIdx, false
	return tell, nil
}
