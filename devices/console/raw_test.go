package console

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// openPTY returns both ends of a new pseudo-terminal.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatalf("no pseudo-terminal: %v; mount devpts on /dev/pts", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = slave.Close() })
	return master, slave
}

func mode(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

func TestRawIsUndone(t *testing.T) {
	_, tty := openPTY(t)
	before := mode(t, tty)
	restore, err := Raw(tty)
	if err != nil {
		t.Fatal(err)
	}
	raw := mode(t, tty)
	if raw.Lflag&(unix.ICANON|unix.ECHO|unix.ISIG) != 0 || raw.Iflag&unix.IXON != 0 {
		t.Errorf("not raw: %+v", raw)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if after := mode(t, tty); after != before {
		t.Errorf("the terminal is left as %+v, was %+v", after, before)
	}
	// A second call must not undo what somebody else has done since.
	if _, err := Raw(tty); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Fatal(err)
	}
	if m := mode(t, tty); m != raw {
		t.Error("restoring twice changes the terminal twice")
	}
}

func TestRawReportsATerminalThatIsGone(t *testing.T) {
	_, tty := openPTY(t)
	restore, err := Raw(tty)
	if err != nil {
		t.Fatal(err)
	}
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	if err := restore(); err == nil {
		t.Error("restoring a closed terminal gives no error")
	}
}

func TestRawLeavesAPipeAlone(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	restore, err := Raw(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := restore(); err != nil {
		t.Error(err)
	}
}
