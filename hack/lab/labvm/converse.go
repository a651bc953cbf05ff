package labvm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/hack/lab/frame"
)

// converse speaks with the lab's init until the command's exit status has come. It calls up when it hears of it first.
func converse(port *os.File, o *Options, up func()) (int, error) {
	start := time.Now()
	w := frame.NewWriter(port)
	for {
		kind, payload, err := frame.Read(port)
		if errors.Is(err, io.EOF) {
			return 0, errors.New("the machine stopped before the command had ended")
		}
		if err != nil {
			return 0, err
		}
		switch kind {
		case frame.Ready:
			up()
			fmt.Fprintf(o.Progress, "lab: KVM host up after %.1f s (its own clock: %s s)\n", time.Since(start).Seconds(), payload)
			sendSize(w, o)
			go sendInput(w, o.Stdin)
			go sendSignals(w, o)
		case frame.Stdout:
			_, err = o.Stdout.Write(payload)
		case frame.Stderr:
			_, err = o.Stderr.Write(payload)
		case frame.Failed:
			return 0, fmt.Errorf("init could not run the command: %s", payload)
		case frame.Exit:
			status, err := frame.Uint32(payload)
			return int(status), err
		}
		if err != nil {
			return 0, fmt.Errorf("passing on the command's output: %w", err)
		}
	}
}

// sendInput copies in to the command. Errors are left to the reader of the port, who sees the lab's end too.
func sendInput(w *frame.Writer, in io.Reader) {
	if in != nil {
		_, _ = io.Copy(w.Stream(frame.Stdin), in)
	}
	_ = w.Send(frame.StdinEOF, nil)
}

func sendSignals(w *frame.Writer, o *Options) {
	for sig := range o.Signals {
		number, ok := sig.(syscall.Signal)
		switch {
		case !ok:
		case number == unix.SIGWINCH:
			sendSize(w, o)
		default:
			_ = w.SendUint32(frame.Signal, uint32(number))
		}
	}
}

// sendSize tells the lab how large the user's terminal is.
func sendSize(w *frame.Writer, o *Options) {
	if f, ok := o.Stdout.(*os.File); ok && o.Terminal {
		if columns, rows, err := term.GetSize(int(f.Fd())); err == nil {
			size := binary.LittleEndian.AppendUint16(nil, uint16(rows))
			_ = w.Send(frame.Resize, binary.LittleEndian.AppendUint16(size, uint16(columns)))
		}
	}
}
