package migration

import (
	"net"
	"sync"

	"microvm/memslot"
	"microvm/migration/wire"
)

// returnPath is the destination's end of the return path. Everything that
// travels on it is short, so that a request for a page is never far from the
// wire; each call writes at once, in one system call.
type returnPath struct {
	mu     sync.Mutex
	conn   net.Conn
	blocks []*memslot.Block
	buf    []byte
	last   int // block of the last request; its name is not repeated
}

func newReturnPath(c net.Conn) *returnPath {
	return &returnPath{conn: c, buf: make([]byte, 0, 16<<10), last: -1}
}

// send writes what encode appends.
func (r *returnPath) send(encode func([]byte) []byte) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.conn.Write(encode(r.buf[:0]))
	return err
}

// request asks for pages, all in one write. It does not allocate.
func (r *returnPath) request(pages []pageRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	buf := r.buf[:0]
	for _, p := range pages {
		b := r.blocks[p.block]
		name := ""
		if p.block != r.last {
			name = b.Name()
			r.last = p.block
		}
		buf = wire.AppendReqPages(buf, name, p.page*b.PageSize(), b.PageSize())
	}
	_, err := r.conn.Write(buf)
	return err
}
