package vmm

import "bytes"

// scrollSize is how much of what a guest printed is kept, in bytes: for whoever
// comes to look, and when the VM has ended.
const scrollSize = 64 << 10

// A scrollback is the last of what a guest printed.
type scrollback struct {
	// buf ends with the last scrollSize bytes, and may have as many before them,
	// so that it need not be moved at each write.
	buf []byte
	cut bool // something came before buf
}

func (s *scrollback) add(p []byte) {
	if extra := len(p) - scrollSize; extra > 0 {
		p, s.cut = p[extra:], true
	}
	s.buf = append(s.buf, p...)
	if extra := len(s.buf) - scrollSize; extra > scrollSize {
		s.buf, s.cut = append(s.buf[:0], s.buf[extra:]...), true
	}
}

// last returns at most scrollSize bytes, from a place at which a terminal may
// begin. They are valid until the next add.
func (s *scrollback) last() []byte {
	b, cut := s.buf, s.cut
	if extra := len(b) - scrollSize; extra > 0 {
		b, cut = b[extra:], true
	}
	if !cut {
		return b
	}
	if n := firstBoundary(b); n >= 0 {
		return b[n:]
	}
	// Neither lines nor escape sequences; then there are letters at most.
	for len(b) > 0 && b[0]&0xc0 == 0x80 { // the rest of one in UTF-8
		b = b[1:]
	}
	return b
}

// A boundary is a place in a guest's output at which a terminal may begin that
// saw nothing of what came before, or stop: the end of a line, or where an escape
// sequence begins. Elsewhere it may be in the midst of a letter or a sequence,
// and take the rest of that for text, or text for a sequence. They are -1 if
// there is none.
func firstBoundary(b []byte) int {
	at := bytes.IndexAny(b, "\n\x1b")
	if at >= 0 && b[at] == '\n' {
		at++
	}
	return at
}

func lastBoundary(b []byte) int {
	at := bytes.LastIndexAny(b, "\n\x1b")
	if at >= 0 && b[at] == '\n' {
		at++
	}
	return at
}
