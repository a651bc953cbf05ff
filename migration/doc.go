// Package migration moves a running VM from one process to another, on this
// host or the next: by postcopy, by precopy, or by precopy that turns into
// postcopy (hybrid).
//
// The package knows nothing of KVM. It needs RAM blocks (package memslot), a
// list of states that can be saved and loaded (Snapshotter), and a machine
// that can be paused and run: SourceMachine, DestinationMachine. Messages are
// laid out in package wire, userfaultfd is package uffd.
//
// A program with a VM of its own implements SourceMachine on one side, and
// Builder, which makes a DestinationMachine, on the other. RAM it asks
// memslot.NewBlock for; whatever else changes as the guest runs is a
// Snapshotter. The example is such a program. The source calls NewSource and Run, the destination
// Listen, NewDestination and Receive; what comes back is a Report, and while
// they are at it Status tells how it goes.
//
// # Sequence
//
//	source                                   destination
//	hello: main, urgent, [multi...]    ──▶
//	OPEN_RETURN_PATH, CONFIG           ──▶   build the machine, paused, or refuse
//	POSTCOPY_ADVISE                    ──▶   arm userfaultfd on all of RAM
//	PING, several times                ──▶
//	                                   ◀──   PONG (the first: all is as it should be)
//	[precopy, hybrid: RAM, in passes]  ──▶   put in place; what comes later replaces it
//	[multi: SYNC, after each pass]     ──▶   the channels meet
//	pause
//	[hybrid: RAM_DISCARD...]           ──▶   drop what has changed since it was sent
//	[precopy: RAM, what is left]       ──▶
//	PACKAGED{LISTEN, DEVICE_STATE...}  ──▶   answer faults; load devices
//	                                   ◀──   LOADED
//	POSTCOPY_RUN                       ──▶   run
//	                                   ◀──   RUNNING
//	                                   ◀──   REQ_PAGES: somebody waits for a page
//	RAM, on urgent, at once            ──▶   UFFDIO_COPY, which wakes them
//	RAM, on main: all that is left     ──▶   UFFDIO_COPY
//	[multi: SYNC]                      ──▶   the channels meet
//	[verify: CHECKSUMS...]             ──▶
//	COMPLETE, on every channel         ──▶   last page in: userfaultfd unregistered
//	                                   ◀──   STATS, SHUT 0
//	END                                ──▶   nobody needs the other any more
//
// With Options.Connections above 1 bulk RAM goes by so many multi channels
// instead of main. A page that is sent in two passes may go by two of them; so
// the source ends each pass, and the push, by SYNC on all of them and on main,
// and the destination deals with nothing that follows a SYNC on any channel
// before all that precedes it on every channel. Main therefore says RAM_DISCARD,
// PACKAGED and COMPLETE after what they are about.
//
// Devices whose state comes in parts (PartSnapshotter) then go by the multi
// channels too, each with a goroutine of its own on both sides: their packets
// follow a SYNC after PACKAGED, so that LISTEN comes before any of them.
//
// # Who owns the guest
//
// The source, until POSTCOPY_RUN has been written whole; a RUN that the socket
// did not take in full can never arrive, and the source takes the VM back.
// From then on the destination, which runs it when it reads RUN. Whatever
// breaks before that has the guest run on at the source, with CANCEL telling
// the destination if it can be told.
//
//	            Cancel, timeout, refusal,
//	            any error before RUN is written
//	           ┌──────────────────────────────┐
//	           ▼                              │
//	setup ─▶ (runs here) ─▶ active ─▶ device ─┴▶ postcopy-active ─▶ completed
//	                                                 │      ▲
//	                                 connection lost ▼      │ RESUME_ACK
//	                                             postcopy-paused
//
// # Recovery
//
// When connections break after that, both sides keep what they have: the guest
// runs on, and its vCPUs stop only where they touch a page that is missing.
// The source dials again, with the same id:
//
//	hello: main, urgent, [multi...], resume      ──▶  whatever the old ones still carried is void
//	POSTCOPY_RESUME                              ──▶
//	                                             ◀──  RECV_BITMAP for each block: what has arrived
//	                                             ◀──  RESUME_ACK: it runs here, or never got RUN
//	[POSTCOPY_RUN, if it never got it]           ──▶
//	                                             ◀──  REQ_PAGES, again, for what is waited for
//
// and both go on from there. It may break again at any point, and start again.
// When Options.Recover is over, Run leaves the migration paused, with every
// page kept; (*Source).Resume takes it up whenever somebody has mended what
// broke, also by another address, which (*Source).Redirect gives a source that
// still dials. A guest that runs at the destination and needs pages waits for
// that as long as it takes.
//
// # Who waits for whom
//
// Each arrow has a goroutine of its own, so that no path waits for another:
//
//	destination                                       source
//	fault thread     userfaultfd ─▶ REQ_PAGES   ─▶    return path reader ─▶ urgent
//	urgent reader    urgent      ─▶ UFFDIO_COPY
//	main reader      main        ─▶ UFFDIO_COPY  ◀─   pusher             ─▶ main
//	[multi reader]   multi N     ─▶ UFFDIO_COPY  ◀─   [pusher N]         ─▶ multi N
//	statistics       STATS                       ─▶   return path reader
//	loader           devices, once
//
// A page belongs at the source to whoever claims it first in a bitmap, the
// pusher or the answer to a request. At the destination it is asked for once,
// however many wait for it. If the pusher has claimed it by then it is sent a
// second time, on urgent, where nothing is before it.
//
// Go's garbage collector would take every CPU from these in the worst moment. From
// just before the pause to the end of the migration both sides have the program do
// without it, for as long as 64 MiB of garbage last.
//
// # To a file, and from it
//
// Save writes a machine to the files of package snapshot, and is precopy with them for a
// destination: what the guest writes meanwhile is logged and written again, and it
// stands still for the rest. A Restoration is the way back. If it is lazy, it arms
// the same pager as a destination, and answers its requests by reading:
//
//	fault thread   userfaultfd ─▶ wanted
//	answer         wanted ─▶ file ─▶ UFFDIO_COPY
//	fill           file ─▶ UFFDIO_COPY
package migration
