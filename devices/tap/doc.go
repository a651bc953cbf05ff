// Package tap opens the host's end of a guest's network card: a tap device,
// whose frames a program reads and writes (Documentation/networking/tuntap.rst
// of the kernel). A frame is preceded by a header of 12 bytes, struct
// virtio_net_hdr_v1 (VIRTIO 1.2, section 5.1.6), so that a segment of up to 64
// KiB and a checksum that nobody has computed yet pass through whole.
//
//	guest ══ virtio queues ══ microvm ── read, write ──▶ tap ── bridge ── ...
//
// A device that [Open] makes is not a persistent one: it goes away with the
// last file that is open on it, however this process ends. One that was there
// is used as it is, and stays.
package tap
