// Package vsock is the virtio socket device (VIRTIO 1.2, section 5.10): stream
// sockets between a guest and programs of its host, which have unix sockets for
// them, named as Firecracker does it.
//
//	host program ── connect UDS, "CONNECT 52\n" ──▶ Device ── REQUEST ──▶ guest's listener, port 52
//	             ◀─ "OK 1073741824\n" ────────────        ◀─ RESPONSE ──
//	host program, listens on UDS_52 ◀── connect ── Device ◀── REQUEST ── guest, to CID 2, port 52
//
// # Who does what
//
//	transmit queue's worker ─ writev ─▶ socket        straight from guest memory; what the
//	                       └─ ring ─▶ pump ─▶ socket  socket does not take at once is kept
//	receive queue's worker ◀─ readv ── socket         straight into guest memory
//	      ▲ woken by: a connection's watcher, which waits for the socket to be readable;
//	      └ the transmit queue, which has something to answer
//
// Neither worker waits for a program of the host, or for the guest to make room:
// of what a connection cannot move, only that connection knows. The receive
// queue's worker goes round the connections that have something, a packet each.
//
// # Credit
//
// Both sides say in each packet how much the connection may be sent in all
// (section 5.10.6.3). A guest may have a connection's window under way; a guest
// that sends more is reset. The host's programs have their socket's buffer, which
// is read when the guest has room.
//
// # Bounds
//
// There are MaxConnections, those that are being made and those whose last bytes
// have yet to reach the host included. A connection's ring is at most its window,
// and made when it is first needed; answers to packets that are of no connection
// are at most maxOrphans, more are not given. What a connection has to say is kept
// as bits.
//
// # Migration
//
// Connections do not move: at the destination the driver is told by the event
// TRANSPORT_RESET, and resets its own; its listeners stay. The host's programs at
// the source get what the guest has sent, and the end of the stream.
package vsock
