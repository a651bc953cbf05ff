// Package virtio is what every virtio device has in common (OASIS VIRTIO 1.2):
// split virtqueues, the life that a driver leads a device through, and the
// MMIO transport. What a kind of device does is a [Backend]; packages below
// this one have them.
//
//	driver ── registers ──▶ MMIO ──▶ Device ── Start, Serve, Drain ──▶ Backend
//	       ── ioeventfd ─────────────▶ worker, one per queue ──┘          │
//	       ◀─ irqfd ─────── MMIO ◀── Queue.Push ◀──────────────────────────┘
//	       ◀═ rings and buffers: guest memory, through package memslot ═▶
//
// A [Device] knows no transport and a transport, which turns registers into
// calls of Device and tells the driver of used buffers ([Notifier]), knows no
// kind of device: PCI can stand beside [MMIO] with neither changed.
//
// # Threads
//
// A vCPU's write to the notification register ends in KVM as a signal to an
// eventfd. One goroutine per queue, its worker, waits for that and has the
// backend take what the driver made available; the backend may finish it on
// any goroutine. vCPU threads only see registers. They wait for one thing: to
// reset a device means that nothing of it touches guest memory afterwards, so
// a reset waits for the requests that are under way.
//
// # A hostile driver
//
// Everything in guest memory may be anything, and change while it is looked
// at. What a decision depends on is therefore read once, into memory of ours,
// and checked there: see [Queue.Next]. A driver that breaks the rules of the
// queue gets DEVICE_NEEDS_RESET, and its device stands still until then; it
// cannot make this process touch what is not its RAM, run for ever, or
// allocate.
//
// # Pause and migration
//
// [Device.Hold] ends the workers and waits for what is under way, so that the
// queues' two indices are all there is to move; [Device.Release] starts them,
// on whichever host, with a look at every queue: a notification that came
// while nobody listened is not missed. Load touches no guest memory, which may
// not have arrived yet; the workers do, and wait for what is missing.
package virtio
