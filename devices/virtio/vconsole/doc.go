// Package vconsole is the virtio console device (VIRTIO 1.2, section 5.3), which
// Linux has as hvc0: one port, with a size. (Package devices/console is the host's
// terminal.) MULTIPORT and EMERG_WRITE are not offered.
//
//	who types ─ InputAll ─▶ 4 KiB ─ receive queue's worker ─▶ guest
//	writer ◀─ goroutine ─ 2 x 16 KiB ◀─ transmit queue's worker ─ guest
//	terminal's size ─ Resize ─▶ configuration space, and a notice of its change
//
// A writer that takes nothing holds up the guest's next output, and neither a
// vCPU nor a pause: how much of a request has been taken is part of the state, as
// is what was typed and the guest has not got. Nothing is lost or doubled by a
// pause or a migration; what a source has taken from the guest, it writes itself.
package vconsole
