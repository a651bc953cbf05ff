package virtio_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

const (
	needsReset = 64
	ramEnd     = 4 << 20
)

// TestBrokenChainsStopTheDevice: what a driver must not do has the device ask
// for a reset, say why, and work after it.
func TestBrokenChainsStopTheDevice(t *testing.T) {
	const n, w, ind = virtiotest.Next, virtiotest.Write, virtiotest.Indirect
	type desc [4]uint64 // address, length, flags, next
	parse := func(d desc) virtiotest.Desc {
		return virtiotest.Desc{GPA: d[0], Len: uint32(d[1]), Flags: uint16(d[2]), Next: uint16(d[3])}
	}
	const table = arena + 0x1000
	for _, c := range []struct {
		name     string
		features uint64
		chain    []desc // in the queue's table, from 0 on
		inner    []desc // at table
		head     uint16
		want     string
	}{
		{name: "head past the table", head: 16, want: "descriptor 16: the table has 16"},
		{name: "head far past the table", head: 0xFFFF, want: "descriptor 65535"},
		{name: "next past the table", chain: []desc{{arena, 8, n, 16}}, want: "descriptor 16: the table has 16"},
		{name: "a loop of one", chain: []desc{{arena, 8, n, 0}}, want: "loop"},
		{name: "a loop of two", chain: []desc{{arena, 8, n, 1}, {arena, 8, n, 0}}, want: "loop"},
		{name: "a loop of empty ones", chain: []desc{{arena, 0, n, 1}, {arena, 0, n, 0}}, want: "loop"},
		{name: "read after write", chain: []desc{{arena, 8, n | w, 1}, {arena, 8, 0, 0}}, want: "for the device to read, after"},
		{name: "4 GiB and more", chain: []desc{{arena, 1 << 31, n, 1}, {arena, 1 << 31, w, 0}}, want: "less than 4 GiB"},
		{name: "no RAM to read", chain: []desc{{ramEnd - 4, 8, n, 1}, {arena, 8, w, 0}}, want: "no RAM at 0x400000"},
		{name: "no RAM to write", chain: []desc{{arena, 8, n, 1}, {ramEnd - 4, 8, w, 0}}, want: "no RAM at 0x400000"},
		{name: "around the end of addresses", chain: []desc{{^uint64(3), 8, n, 1}, {arena, 8, w, 0}}, want: "no RAM"},
		{name: "indirect unasked", features: virtio.FeatureVersion1, chain: []desc{{table, 16, ind, 0}}, want: "not negotiated"},
		{name: "indirect with next", chain: []desc{{table, 16, ind | n, 1}, {arena, 8, w, 0}}, want: "has a next"},
		{name: "indirect inside indirect", chain: []desc{{table, 16, ind, 0}}, inner: []desc{{table, 16, ind, 0}}, want: "indirect itself"},
		{name: "empty indirect table", chain: []desc{{table, 0, ind, 0}}, want: "table of 0 bytes"},
		{name: "broken indirect table", chain: []desc{{table, 24, ind, 0}}, want: "table of 24 bytes"},
		{name: "long indirect table", chain: []desc{{table, 16 * 1025, ind, 0}}, want: "table of 16400 bytes"},
		{name: "endless indirect table", chain: []desc{{table, 1<<32 - 16, ind, 0}}, want: "1 to 1024"},
		{name: "indirect table is no RAM", chain: []desc{{ramEnd, 16, ind, 0}}, want: "read the indirect table"},
		{name: "next past the indirect table", chain: []desc{{table, 16, ind, 0}}, inner: []desc{{arena, 8, n, 1}}, want: "descriptor 1: the table has 1"},
		{name: "loop in an indirect table", chain: []desc{{table, 32, ind, 0}}, inner: []desc{{arena, 8, n, 1}, {arena, 8, n, 0}}, want: "loop"},
		{name: "read after write across tables", chain: []desc{{arena, 8, n | w, 1}, {table, 16, ind, 0}}, inner: []desc{{arena, 8, 0, 0}}, want: "after one for it to write"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, log := newLoggingRig(t)
			if c.features == 0 {
				c.features = allFeatures
			}
			r.Init(c.features)
			q := r.NewQueue(0, 16)
			for i, d := range c.chain {
				q.Put(uint16(i), parse(d))
			}
			for i, d := range c.inner {
				if err := r.Mem.WriteAt(parse(d).Bytes(), table+16*uint64(i)); err != nil {
					t.Fatal(err)
				}
			}
			r.OK()
			q.Offer(c.head)
			r.wantReset(t, q)
			r.mmio.Device().Hold()
			if !strings.Contains(log.String(), c.want) {
				t.Errorf("it says %q, want %q in it", log, c.want)
			}
			r.mmio.Device().Release()
			r.works(t, c.features)
		})
	}
}

func TestBrokenRingsStopTheDevice(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(r *rig, q *virtiotest.Queue)
		want  string
	}{
		{"index too far", func(r *rig, q *virtiotest.Queue) {
			for range 17 {
				q.Offer(0)
			}
		}, "went from 0 to 17"},
		{"driver area is no RAM", func(r *rig, q *virtiotest.Queue) { q.Avail = ramEnd + 0x1000 }, "read the driver area"},
		{"descriptors are no RAM", func(r *rig, q *virtiotest.Queue) { q.Desc = 1 << 60; q.Offer(3) }, "read descriptor"},
		{"device area is no RAM", func(r *rig, q *virtiotest.Queue) { q.Used = ^uint64(0) &^ 0xFFF }, "write the device area"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, log := newLoggingRig(t)
			r.Init(allFeatures)
			q := r.NewQueue(0, 16)
			r.Set(0x44, 0)
			c.spoil(r, q)
			q.Announce()
			r.OK()
			r.wantReset(t, q)
			r.mmio.Device().Hold()
			if !strings.Contains(log.String(), "virtqueue 0") {
				t.Errorf("it says %q, want %q in it", log, c.want)
			}
			r.mmio.Device().Release()
			r.works(t, allFeatures)
		})
	}
}

// newLoggingRig is a rig with one queue of 16 whose log can be read once the
// device is held.
func newLoggingRig(t *testing.T) (*rig, *bytes.Buffer) {
	log := new(bytes.Buffer)
	mem, block := virtiotest.NewMemory(t, ramEnd)
	e := &echo{queues: []uint16{16}}
	irq := virtiotest.NewIRQ()
	m := virtiotest.NewMMIO(t, "echo0", e, mem, irq, slog.New(slog.NewTextHandler(log, nil)))
	m.Device().Release()
	return &rig{virtiotest.NewDriver(t, m, mem, 4096, irq), e, m, block}, log
}

// wantReset kicks and waits for the device to ask for a reset.
func (r *rig) wantReset(t *testing.T, q *virtiotest.Queue) {
	t.Helper()
	r.Set(0x50, q.Index)
	for r.Get(0x60)&2 == 0 {
		r.IRQ.Wait(t)
	}
	if status := r.Get(0x70); status != 15|needsReset {
		t.Errorf("status %#x, want DEVICE_NEEDS_RESET in it", status)
	}
	// Until then it does nothing, whatever it is told.
	r.Set(0x50, q.Index)
	r.Set(0x70, 15)
}

// works resets the device and has it answer.
func (r *rig) works(t *testing.T, features uint64) {
	t.Helper()
	r.Init(features)
	q := r.NewQueue(0, 8)
	r.OK()
	if written, data := q.Do(arena, virtiotest.Buf{Data: []byte("HAL")}, virtiotest.Buf{Room: 3}); written != 3 || string(data) != "IBM" {
		t.Errorf("after a reset it answers %q", data[:written])
	}
}
