// Package frame is the conversation between `lab run` and the lab's init, over one virtio-serial port.
//
// A frame is a kind (one byte), the payload's length (four bytes, little-endian, at most MaxPayload) and the
// payload. The command's output, its exit status and the reason why it could not be started each have a kind of
// their own, so nothing that the command or the kernel prints can be taken for a status.
//
//	lab run                         init in the lab
//	   | <---------- Ready ------------ |   the host is up, the command is about to start
//	   | -- Stdin, StdinEOF, Signal --> |
//	   | <------ Stdout, Stderr ------- |
//	   | <------- Exit or Failed ------ |   last frame; `lab run` ends the machine
package frame

import (
	"encoding/binary"
	"fmt"
	"io"
	"sync"
)

// Kind says what a frame's payload is.
type Kind byte

// The kinds, and their payloads.
const (
	Ready    Kind = iota + 1 // the host's uptime in seconds, decimal text
	Stdout                   // bytes the command wrote
	Stderr                   // bytes the command wrote
	Exit                     // exit status, uint32 little-endian (128+n when signal n ended the command)
	Failed                   // text: why the lab could not start the command
	Stdin                    // bytes for the command
	StdinEOF                 // empty: no more input
	Signal                   // signal number, uint32 little-endian, for the command's process group
	Resize                   // terminal rows and columns, two uint16 little-endian
)

// MaxPayload is the largest payload of one frame, in bytes.
const MaxPayload = 32 << 10

const headerSize = 5

// Writer writes frames; several goroutines may use it at once.
type Writer struct {
	mu  sync.Mutex
	w   io.Writer
	buf []byte
}

// NewWriter returns a Writer of frames to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Send writes payload as frames of the given kind: one, or several if it is longer than MaxPayload.
func (w *Writer) Send(kind Kind, payload []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for {
		n := min(len(payload), MaxPayload)
		w.buf = append(w.buf[:0], byte(kind))
		w.buf = binary.LittleEndian.AppendUint32(w.buf, uint32(n))
		w.buf = append(w.buf, payload[:n]...)
		if _, err := w.w.Write(w.buf); err != nil {
			return fmt.Errorf("lab frame of kind %d, %d bytes: %w", kind, n, err)
		}
		if payload = payload[n:]; len(payload) == 0 {
			return nil
		}
	}
}

// SendUint32 writes one frame whose payload is v.
func (w *Writer) SendUint32(kind Kind, v uint32) error {
	return w.Send(kind, binary.LittleEndian.AppendUint32(nil, v))
}

// Stream returns an io.Writer that sends what is written to it as frames of the given kind.
func (w *Writer) Stream(kind Kind) io.Writer { return stream{w, kind} }

type stream struct {
	w    *Writer
	kind Kind
}

func (s stream) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := s.w.Send(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Read reads one frame. The error is io.EOF when the stream ended between two frames.
func Read(r io.Reader) (Kind, []byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	kind, n := Kind(header[0]), binary.LittleEndian.Uint32(header[1:])
	if n > MaxPayload {
		return 0, nil, fmt.Errorf("lab frame of kind %d claims %d bytes, the limit is %d", kind, n, MaxPayload)
	}
	payload := make([]byte, n)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("lab frame of kind %d cut short: %w", kind, io.ErrUnexpectedEOF)
	}
	return kind, payload, nil
}

// Uint32 decodes the payload of an Exit or a Signal frame.
func Uint32(payload []byte) (uint32, error) {
	if len(payload) != 4 {
		return 0, fmt.Errorf("lab frame payload of %d bytes where 4 were expected", len(payload))
	}
	return binary.LittleEndian.Uint32(payload), nil
}
