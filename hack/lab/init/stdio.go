package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"microvm/hack/lab/frame"
)

// commandInput is the command's end of the conversation: a pair of pipes, or a terminal.
type commandInput interface {
	started()        // the command runs: let go of what only it should hold
	write(p []byte)  // input; what the command no longer wants is dropped
	end()            // no more input
	resize(p []byte) // payload of a Resize frame
	drain()          // the command is gone: send what it had written
}

type pipes struct{ stdin, childStdin *os.File }

func attachPipes(cmd *exec.Cmd, w *frame.Writer) (commandInput, error) {
	r, in, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, w.Stream(frame.Stdout), w.Stream(frame.Stderr)
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	return &pipes{stdin: in, childStdin: r}, nil
}

func (p *pipes) started()       { p.childStdin.Close() }
func (p *pipes) write(b []byte) { _, _ = p.stdin.Write(b) }
func (p *pipes) end()           { p.stdin.Close() }
func (p *pipes) resize([]byte)  {}
func (p *pipes) drain()         {} // exec.Cmd.Wait did it

type terminal struct {
	master, slave *os.File
	copied        chan struct{}
}

// attachTerminal makes a pseudo-terminal (pty(7)) the command's controlling terminal.
func attachTerminal(cmd *exec.Cmd, w *frame.Writer) (commandInput, error) {
	master, err := os.OpenFile("/dev/pts/ptmx", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, fmt.Errorf("pseudo-terminal: TIOCGPTN: %w", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, fmt.Errorf("pseudo-terminal: TIOCSPTLCK: %w", err)
	}
	slave, err := os.OpenFile("/dev/pts/"+strconv.Itoa(number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	t := &terminal{master: master, slave: slave, copied: make(chan struct{})}
	go func() {
		defer close(t.copied)
		// Ends with EIO when the last holder of the slave side is gone.
		_, _ = io.Copy(w.Stream(frame.Stdout), master)
	}()
	return t, nil
}

func (t *terminal) started()       { t.slave.Close() }
func (t *terminal) write(b []byte) { _, _ = t.master.Write(b) }

// end types the terminal's end-of-file character.
func (t *terminal) end() { t.write([]byte{4}) }

func (t *terminal) resize(p []byte) {
	if len(p) == 4 {
		_ = unix.IoctlSetWinsize(int(t.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{
			Row: binary.LittleEndian.Uint16(p), Col: binary.LittleEndian.Uint16(p[2:]),
		})
	}
}

func (t *terminal) drain() {
	select {
	case <-t.copied:
	case <-time.After(outputGrace):
	}
}
