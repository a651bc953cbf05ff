package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// A logFile is the log of a detached VM, whose guest can have its devices
// complain without end. It keeps the last of it: what is older becomes a hole in
// the file, so that whoever follows it need not know.
type logFile struct {
	f       *os.File
	most    int64 // bytes, from which on half of them go
	size    int64 // of the file, with the hole
	dropped int64 // how much of that is the hole
}

// logMost bounds what a log takes on disk, or of memory: the state directory is
// a tmpfs as a rule.
const logMost = 8 << 20

// newLogFile goes on with what is in f already. It is for files that are
// appended to.
func newLogFile(f *os.File, most int64) (*logFile, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &logFile{f: f, most: most, size: info.Size()}, nil
}

func (l *logFile) Write(line []byte) (int, error) {
	n, err := l.f.Write(line)
	l.size += int64(n)
	if l.size-l.dropped > l.most {
		l.drop()
	}
	return n, err
}

// drop makes the older half a hole.
func (l *logFile) drop() {
	l.dropped = l.size - l.most/2
	err := unix.Fallocate(int(l.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, l.dropped)
	if err != nil {
		l.dropped = math.MaxInt64 / 2 // once is enough
		fmt.Fprintf(l.f, "this log grows without bound, its file system makes no holes: %v\n", err)
	}
}

// readLog begins to read a log with the first whole line that is left of it.
func readLog(f *os.File) (io.Reader, error) {
	from, err := unix.Seek(int(f.Fd()), 0, unix.SEEK_DATA)
	switch {
	case err == nil && from == 0, errors.Is(err, unix.ENXIO), errors.Is(err, unix.EINVAL):
		return f, nil // there is no hole; it is empty; it cannot have one
	case err != nil:
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	// The hole ends with a page of the file: the rest of the page has zeros, then
	// the end of a line.
	r := bufio.NewReader(f)
	for {
		if _, err := r.ReadSlice('\n'); err == nil || err == io.EOF {
			return r, nil
		} else if !errors.Is(err, bufio.ErrBufferFull) {
			return nil, fmt.Errorf("%s: %w", f.Name(), err)
		}
	}
}
