package net

import (
	"fmt"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// A window is the buffers that a receiver has taken and not given back, in the
// order in which the driver made them available.
type window struct {
	chains []virtio.Chain // a ring
	first  int
	count  int
	room   uint64 // in all of them, in bytes

	// vectors, from index passed on, are where they are in this process;
	// pieces is how many each has, as chains is indexed. The first absent of
	// them have none: pages of guest memory are missing, and are waited for
	// only where a frame needs them.
	vectors []unix.Iovec
	passed  int
	pieces  [queueSize]int
	absent  int
}

func newWindow() window {
	return window{
		chains: make([]virtio.Chain, queueSize),
		// For two system calls' vectors, and the spill: it never grows.
		vectors: make([]unix.Iovec, 0, 2*maxVectors+1),
	}
}

// at is the buffer number i, next the one that the next is to be taken into.
func (w *window) at(i int) *virtio.Chain { return &w.chains[(w.first+i)%len(w.chains)] }
func (w *window) next() *virtio.Chain    { return w.at(w.count) }

// full says that it can have no more buffers.
func (w *window) full() bool { return w.count == len(w.chains) || len(w.ahead()) >= maxPieces }

// maxPieces is where a window is full: a system call takes no more, with one
// left for the spill. maxBuffer is how many a buffer may have beyond that.
const (
	maxPieces = 512
	maxBuffer = maxVectors - 1 - maxPieces
)

// add makes what next gave the last one.
func (w *window) add(c *virtio.Chain) (err error) {
	n := 0
	if c.Whole() {
		if n, err = w.addVectors(c); err != nil {
			return err
		}
	} else {
		w.absent++
	}
	w.pieces[(w.first+w.count)%len(w.chains)] = n
	w.count++
	w.room += c.WriteLen
	return nil
}

func (w *window) addVectors(c *virtio.Chain) (n int, err error) {
	if w.passed >= maxVectors {
		n := copy(w.vectors, w.ahead())
		w.vectors, w.passed = w.vectors[:n], 0
	}
	was := len(w.vectors)
	if w.vectors, err = c.WriteVectors(w.vectors, 0, c.WriteLen); err != nil {
		return 0, err
	}
	n = len(w.vectors) - was
	if n > maxBuffer {
		return 0, fmt.Errorf("a receive buffer in %d pieces: at most %d", n, maxBuffer)
	}
	return n, nil
}

// ahead is where all of them are.
func (w *window) ahead() []unix.Iovec { return w.vectors[w.passed:] }

// written marks the first n bytes of them as written, and says in how many
// buffers those are.
func (w *window) written(n uint64) (k int) {
	for ; n > 0; k++ {
		c := w.at(k)
		part := min(n, c.WriteLen)
		c.MarkWritten(0, part)
		n -= part
	}
	return k
}

// drop forgets the first k, which have been given back.
func (w *window) drop(k int) {
	for i := range k {
		w.room -= w.at(i).WriteLen
		w.passed += w.pieces[(w.first+i)%len(w.chains)]
	}
	w.first = (w.first + k) % len(w.chains)
	w.count -= k
	w.absent -= min(w.absent, k)
	if w.count == 0 {
		w.clear()
	}
}

// clear forgets all of them.
func (w *window) clear() {
	w.first, w.count, w.room, w.absent = 0, 0, 0, 0
	w.vectors, w.passed = w.vectors[:0], 0
}
