// Package net is the virtio network device (VIRTIO 1.2, section 5.1) on a tap
// device of the host.
//
//	receive queue's worker ◀── readv ── tap       straight into the buffers
//	transmit queue's worker ─── writev ─▶ tap     straight from guest memory
//	control queue's worker ──▶ how many pairs are used; an announcement made
//
// A pair of queues has a file of the tap to itself. The header that precedes
// each frame is the same on both sides, so that checksums and segments of up to
// 64 KiB pass through: what the driver did not accept, the kernel does itself
// before it hands a frame over.
//
// # Receiving
//
// A receive queue's worker waits for one thing at a time. While the driver has
// buffers it waits for the tap, in Serve, parked in the runtime's poller; while
// it has none, for the driver's notification, as every worker does. A pause
// ends the first kind of wait by a deadline in the past.
//
// How long a frame is, is known when it has been read. So as many buffers are
// taken as the longest may need, and one readv fills them; those that are left
// over wait for the next frame, or go back to the queue at a pause. When the
// driver has less room than that, a frame is read into memory of ours, and
// waits there for the driver to make room. It is the only thing of a device
// that is held that is not in the queues, and moves with it.
//
// # Transmitting
//
// A frame is in the host's network when writev returns: then, and not before,
// its buffer is given back. The header is read once and checked, and what goes
// to the kernel is our copy.
//
// # Announcing
//
// A guest that runs on another host is behind another port of its switches.
// [Net.Announce] says so for it, with RARP frames, and asks a driver that
// accepted GUEST_ANNOUNCE to say so itself, which knows more: its addresses and
// VLANs.
package net
