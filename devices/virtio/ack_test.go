package virtio_test

import (
	"encoding/binary"
	"sync"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

// keeper are registers whose acknowledgements are kept, as KVM keeps them, until
// the device settles or another register is accessed.
type keeper struct {
	mmio *virtio.MMIO
	mu   sync.Mutex
	kept [][]byte // guarded by mu
}

func keepAcks(r *rig) *keeper {
	k := &keeper{mmio: r.mmio}
	r.mmio.DeferACK(k.settle)
	r.Regs = k
	return k
}

func (k *keeper) settle() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.kept {
		k.mmio.Write(virtio.MMIOACK, p)
	}
	k.kept = k.kept[:0]
}

func (k *keeper) Read(off uint64, p []byte) {
	k.settle()
	k.mmio.Read(off, p)
}

func (k *keeper) Write(off uint64, p []byte) {
	switch off {
	case virtio.MMIOACK:
		k.mu.Lock()
		defer k.mu.Unlock()
		k.kept = append(k.kept, append([]byte(nil), p...))
		return
	case virtio.MMIONotify: // no exit either
	default:
		k.settle()
	}
	k.mmio.Write(off, p)
}

func TestAnAcknowledgementThatComesLateTakesNoInterruptAway(t *testing.T) {
	r := newRig(t, 16)
	keepAcks(r)
	r.Init(allFeatures)
	r.NewQueue(0, 16)
	r.OK()
	for i := range 3 {
		r.mmio.Device().ConfigChanged()
		r.IRQ.Wait(t)
		if got := r.Get(0x60); got != 2 {
			t.Fatalf("change %d: interrupt status %d", i, got)
		}
		r.Set(0x64, 2)
	}
	r.mmio.Device().Hold()
	b, err := r.mmio.Save()
	if err != nil || binary.LittleEndian.Uint32(b[4:]) != 0 {
		t.Errorf("saved with interrupt status %v, %v; it has been acknowledged", b[4:8], err)
	}
}

// TestADriverThatBelievesTheStatusMissesNothing: Linux looks at its queues only if
// the status says that it is worth it.
func TestADriverThatBelievesTheStatusMissesNothing(t *testing.T) {
	r := newRig(t, 16)
	keepAcks(r)
	r.Init(virtio.FeatureVersion1)
	q := r.NewQueue(0, 16)
	r.OK()
	slots := map[uint16]uint64{}
	add := func(slot uint64) {
		head, _ := q.Add(arena+4096*slot, 0, -1, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1})
		slots[head] = slot
		q.Kick()
	}
	const requests, depth = 5000, 3
	for slot := range uint64(depth) {
		add(slot)
	}
	for done := 0; done < requests; {
		r.IRQ.Wait(t)
		status := r.Get(0x60)
		if status == 0 {
			continue
		}
		r.Set(0x64, status)
		for {
			head, _, _, ok := q.Done()
			if !ok {
				break
			}
			if done++; done+depth <= requests {
				add(slots[head])
			}
		}
	}
}
