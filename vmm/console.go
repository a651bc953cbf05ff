package vmm

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
	"unicode"
)

// viewerBuffer is how far a viewer may lag behind before it misses some, in bytes.
const viewerBuffer = 256 << 10

// A Console is the outer end of a VM's serial port: what the guest prints goes
// to one writer, which is waited for and so loses nothing, and to any number
// of viewers, which are not; what is typed anywhere goes to the guest.
type Console struct {
	out   io.Writer
	input chan []byte

	mu sync.Mutex
	// past is guarded by mu.
	past scrollback
	// viewers is guarded by mu.
	viewers map[*viewer]struct{}
}

// NewConsole makes a console that prints to out; nil is nowhere.
func NewConsole(out io.Writer) *Console {
	if out == nil {
		out = io.Discard
	}
	return &Console{out: out, input: make(chan []byte), viewers: make(map[*viewer]struct{})}
}

// Write prints what the guest sent. It waits for out, for no viewer.
func (c *Console) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.past.add(p)
	for v := range c.viewers {
		v.put(p)
	}
	c.mu.Unlock()
	return c.out.Write(p)
}

// last is a copy of the last of what was printed.
func (c *Console) last() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.past.last())
}

// LastLines are the last lines of what was printed, at most n, each of at most 256
// bytes, and without what a terminal or a log would take for more than text.
func (c *Console) LastLines(n int) []string {
	lines := strings.Split(strings.TrimRight(string(c.last()), "\r\n"), "\n")
	lines = lines[max(0, len(lines)-n):]
	for i, line := range lines {
		line = strings.ToValidUTF8(line[:min(len(line), 256)], "")
		lines[i] = strings.Map(func(r rune) rune {
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, line)
	}
	return lines
}

// Notice shows the viewers a line of the VMM's own.
func (c *Console) Notice(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for v := range c.viewers {
		v.put(fmt.Appendf(nil, "\r\n[microvm: %s]\r\n", text))
	}
}

// Type gives input to the guest. It returns when the guest's side has taken
// p, which may be as late as when the VM runs; or when ctx has ended.
func (c *Console) Type(ctx context.Context, p []byte) error {
	select {
	case c.input <- p:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Attach serves one viewer: it gets what was printed last, then what is being
// printed; what it sends is typed. It returns when the viewer has hung up, or
// has no more to send, or ctx has ended; having sent what was printed before
// that, unless the viewer does not read it.
func (c *Console) Attach(ctx context.Context, conn net.Conn) {
	v := &viewer{}
	v.cond.L = &v.mu
	c.mu.Lock()
	v.put(c.past.last())
	c.viewers[v] = struct{}{}
	c.mu.Unlock()

	typing, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		c.typeFrom(typing, conn)
		cancel()
	}()
	go func() {
		<-typing.Done()
		v.close()
		// A connection that cannot have a deadline is closed already.
		_ = conn.SetWriteDeadline(time.Now().Add(drainTime))
	}()
	v.drain(conn)
	c.mu.Lock()
	delete(c.viewers, v)
	c.mu.Unlock()
	conn.Close()
}

// typeFrom types what a viewer sends, until it hangs up.
func (c *Console) typeFrom(ctx context.Context, r io.Reader) {
	for {
		p := make([]byte, 256)
		n, err := r.Read(p)
		if n > 0 && c.Type(ctx, p[:n]) != nil || err != nil {
			return
		}
	}
}

// A viewer is a queue of bytes on their way to someone who looks.
type viewer struct {
	mu sync.Mutex
	// cond: buf or closed has changed.
	cond   sync.Cond
	buf    []byte
	missed int
	closed bool
}

// put queues p, or notes that it was missed. What is missed begins and ends at
// boundaries.
func (v *viewer) put(p []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.buf)+len(p) > viewerBuffer {
		if keep := lastBoundary(v.buf); keep >= 0 && v.missed == 0 {
			v.missed += len(v.buf) - keep
			v.buf = v.buf[:keep]
		}
		v.missed += len(p)
		return
	}
	if v.missed > 0 {
		skip := firstBoundary(p)
		if skip < 0 {
			v.missed += len(p)
			return
		}
		v.missed += skip
		p = p[skip:]
		v.buf = fmt.Appendf(v.buf, "\r\n[microvm: this viewer was too slow, %d bytes are missing here]\r\n", v.missed)
		v.missed = 0
	}
	v.buf = append(v.buf, p...)
	v.cond.Signal()
}

func (v *viewer) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.cond.Signal()
}

// drain writes what is queued to w until v is closed and empty, or w fails.
func (v *viewer) drain(w io.Writer) {
	for {
		v.mu.Lock()
		for len(v.buf) == 0 && !v.closed {
			v.cond.Wait()
		}
		buf := v.buf
		v.buf = nil
		v.mu.Unlock()
		if len(buf) == 0 {
			return
		}
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}
