// Package blk is the virtio block device (VIRTIO 1.2, section 5.2) on a raw
// file or a block device of the host.
//
//	queue's worker ─┬─ io_uring ─────────────┬── straight to and from guest memory
//	   ▲            └─ pool of goroutines: ──┤
//	   │               preadv2, pwritev2,    │
//	Queue.Next         fdatasync, fallocate  └──▶ status byte, Queue.Push, interrupt
//
// engine.go says which request goes which way. A request of which pages are
// still at a migration's source asks for all of them at once and comes to the
// pool when they are here; meanwhile it holds up no other one. Requests are done
// in any order, as the standard allows.
//
// # Caches
//
// Where the file can be used with O_DIRECT, it is: the guest has a cache of
// its own, and a destination that shares the file must not read what is in its
// host's. A request that is not aligned as O_DIRECT wants goes through the
// host's cache, which the kernel keeps in step with the file. A write is done
// when the file has it; that it is on the disk is promised by a flush, which
// is fdatasync, or, if the driver has not accepted the feature FLUSH, by every
// write (RWF_DSYNC).
//
// # One writer
//
// An [Image] is locked with an open file description lock while a VM owns it:
// a write lock, or a read lock if the disk is read-only. At a migration the
// source gives it up before the destination is let run, and the destination
// takes it before it does. The lock also works between hosts where the file
// system has locks between hosts (NFS 4).
package blk
