package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"microvm/memslot"
)

// Flags of a descriptor (section 2.7.5).
const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
)

// maxIndirect is how many entries an indirect table may have. The standard
// bounds it by the queue's size, Linux not quite; a table that is read whole
// needs a bound of ours, and 1024 is what preadv takes.
const maxIndirect = 1024

// A segment is one descriptor's buffer.
type segment struct {
	gpa uint64
	len uint32
}

// A Chain is one request: bytes that the device may read, followed by bytes
// that it may write, each a list of pieces of guest memory. Where one piece
// ends means nothing (section 2.6.4), so a Chain is addressed by offsets into
// the two. The pieces may overlap and need not be RAM; an access says so.
type Chain struct {
	mem                *memslot.Memory
	head               uint16
	readable, writable []segment
	// ReadLen and WriteLen are the lengths of the two parts in bytes. Their
	// sum is less than 4 GiB.
	ReadLen, WriteLen uint64
}

func (c *Chain) reset(mem *memslot.Memory, head uint16) {
	c.mem, c.head = mem, head
	c.readable, c.writable = c.readable[:0], c.writable[:0]
	c.ReadLen, c.WriteLen = 0, 0
}

// A descriptor is one entry of a descriptor table.
type descriptor struct {
	gpa         uint64
	len         uint32
	flags, next uint16
}

func parseDescriptor(b []byte) descriptor {
	le := binary.LittleEndian
	return descriptor{le.Uint64(b), le.Uint32(b[8:]), le.Uint16(b[12:]), le.Uint16(b[14:])}
}

// walk follows the descriptors from head on into c.
func (q *Queue) walk(c *Chain, head uint16) error {
	c.reset(q.mem, head)
	last, err := c.follow(uint32(head), uint32(q.setup.size), q.loadDescriptor)
	if err != nil || last.flags&descIndirect == 0 {
		return err
	}
	if err := q.loadTable(last); err != nil {
		return err
	}
	last, err = c.follow(0, last.len/descSize, q.tableDescriptor)
	if err != nil {
		return fmt.Errorf("indirect table: %w", err)
	}
	if last.flags&descIndirect != 0 {
		return errors.New("indirect table: a descriptor in it is indirect itself")
	}
	return nil
}

// follow adds a table's descriptors from number i on, up to one that has no
// next or is indirect, and returns that. Each is read once. A chain cannot
// have more descriptors than its table without coming back to one, which is
// how loops end.
func (c *Chain) follow(i, entries uint32, load func(i uint32) (descriptor, error)) (descriptor, error) {
	for walked := uint32(0); ; walked++ {
		switch {
		case i >= entries:
			return descriptor{}, fmt.Errorf("descriptor %d: the table has %d", i, entries)
		case walked == entries:
			return descriptor{}, fmt.Errorf("a chain of more descriptors than the %d of its table: it is a loop", entries)
		}
		d, err := load(i)
		if err == nil && d.flags&descIndirect == 0 {
			err = c.add(d)
		}
		if err != nil {
			return d, fmt.Errorf("descriptor %d: %w", i, err)
		}
		if d.flags&(descNext|descIndirect) != descNext {
			return d, nil
		}
		i = uint32(d.next)
	}
}

// loadDescriptor reads one of the queue's own table.
func (q *Queue) loadDescriptor(i uint32) (descriptor, error) {
	err := q.mem.ReadAt(q.desc[:], q.setup.desc+descSize*uint64(i))
	return parseDescriptor(q.desc[:]), err
}

// tableDescriptor takes one from the indirect table that was loaded.
func (q *Queue) tableDescriptor(i uint32) (descriptor, error) {
	return parseDescriptor(q.table[descSize*i:]), nil
}

// loadTable reads the indirect table that d refers to (section 2.7.5.3).
func (q *Queue) loadTable(d descriptor) error {
	switch {
	case !q.indirect:
		return errors.New("an indirect descriptor, which was not negotiated")
	case d.flags&descNext != 0:
		return errors.New("an indirect descriptor that has a next one")
	case d.len == 0 || d.len%descSize != 0 || d.len > maxIndirect*descSize:
		return fmt.Errorf("indirect table of %d bytes: has to be 1 to %d descriptors of %d", d.len, maxIndirect, descSize)
	}
	if err := q.mem.ReadAt(q.table[:d.len], d.gpa); err != nil {
		return fmt.Errorf("read the indirect table: %w", err)
	}
	return nil
}

// add appends a buffer.
func (c *Chain) add(d descriptor) error {
	if c.ReadLen+c.WriteLen+uint64(d.len) > math.MaxUint32 {
		return fmt.Errorf("%d bytes after %d: a chain has less than 4 GiB", d.len, c.ReadLen+c.WriteLen)
	}
	switch s := (segment{d.gpa, d.len}); {
	case d.len == 0: // there is nothing at its address
	case d.flags&descWrite != 0:
		c.writable = append(c.writable, s)
		c.WriteLen += uint64(d.len)
	case c.WriteLen > 0:
		return errors.New("for the device to read, after one for it to write")
	default:
		c.readable = append(c.readable, s)
		c.ReadLen += uint64(d.len)
	}
	return nil
}

// Whole reports that no page of guest memory is missing: nothing that is done
// with the chain waits for one, now or later.
func (c *Chain) Whole() bool { return c.mem.Whole() }

// Request asks for the pages of the chain that are missing, all at once, and
// does not wait for them. It reports whether none is: nothing that is done with
// the chain waits then.
func (c *Chain) Request() (here bool) {
	here = true
	for _, segs := range [][]segment{c.readable, c.writable} {
		for _, s := range segs {
			here = c.mem.Request(s.gpa, uint64(s.len)) && here
		}
	}
	return here
}

// Await returns when no page of the chain is missing, or with why one will not
// come.
func (c *Chain) Await() error {
	for _, segs := range [][]segment{c.readable, c.writable} {
		for _, s := range segs {
			if err := c.mem.Await(s.gpa, uint64(s.len)); err != nil {
				return err
			}
		}
	}
	return nil
}

// ErrShort: a chain has fewer bytes than were asked of it.
var ErrShort = errors.New("the chain is too short")

// each calls do for the pieces of guest memory that bytes [off, off+n) of
// segs are, until it returns an error.
func each(segs []segment, off, n uint64, do func(gpa, n uint64) error) error {
	for _, s := range segs {
		if n == 0 {
			return nil
		}
		if off >= uint64(s.len) {
			off -= uint64(s.len)
			continue
		}
		part := min(uint64(s.len)-off, n)
		if err := do(s.gpa+off, part); err != nil {
			return err
		}
		off, n = 0, n-part
	}
	if n != 0 {
		return fmt.Errorf("%d bytes: %w", n, ErrShort)
	}
	return nil
}

// ReadAt fills p from byte off on of what the device may read.
func (c *Chain) ReadAt(p []byte, off uint64) error {
	return each(c.readable, off, uint64(len(p)), func(gpa, n uint64) error {
		part := p[:n]
		p = p[n:]
		return c.mem.ReadAt(part, gpa)
	})
}

// WriteAt puts p at byte off of what the device may write.
func (c *Chain) WriteAt(p []byte, off uint64) error {
	return each(c.writable, off, uint64(len(p)), func(gpa, n uint64) error {
		part := p[:n]
		p = p[n:]
		return c.mem.WriteAt(part, gpa)
	})
}

// ReadVectors appends to dst bytes [off, off+n) of what the device may read,
// for a system call to read: see memslot.Memory.Vectors.
func (c *Chain) ReadVectors(dst []unix.Iovec, off, n uint64) ([]unix.Iovec, error) {
	return c.vectors(dst, c.readable, off, n, false)
}

// WriteVectors appends to dst bytes [off, off+n) of what the device may write,
// for a system call to write, which MarkWritten has to follow.
func (c *Chain) WriteVectors(dst []unix.Iovec, off, n uint64) ([]unix.Iovec, error) {
	return c.vectors(dst, c.writable, off, n, true)
}

func (c *Chain) vectors(dst []unix.Iovec, segs []segment, off, n uint64, write bool) ([]unix.Iovec, error) {
	err := each(segs, off, n, func(gpa, n uint64) (err error) {
		dst, err = c.mem.Vectors(dst, gpa, n, write)
		return err
	})
	return dst, err
}

// GiveBack gives the memory that the device may write back to the host: see
// memslot.Memory.GiveBack.
func (c *Chain) GiveBack() (given uint64, err error) {
	err = each(c.writable, 0, c.WriteLen, func(gpa, n uint64) error {
		part, err := c.mem.GiveBack(gpa, n)
		given += part
		return err
	})
	return given, err
}

// MarkWritten says that a system call has written bytes [off, off+n).
func (c *Chain) MarkWritten(off, n uint64) {
	// It cannot fail: WriteVectors has given the bytes.
	_ = each(c.writable, off, n, func(gpa, n uint64) error {
		c.mem.MarkDirty(gpa, n)
		return nil
	})
}
