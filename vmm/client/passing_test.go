package client

import (
	"fmt"
	"io"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/vmm"
)

// Who passes files has none of them any more: a connection that the other side
// closes has to be closed then.
func TestPassedFilesGoWithTheFirstByteInOrderAndAreClosedHere(t *testing.T) {
	i := vmm.Instance{Name: "a", Path: t.TempDir()}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: i.APISocket(), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	const n = 3
	var readers, files []*os.File
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		readers, files = append(readers, r), append(files, w)
	}
	served := make(chan error, 1)
	go func() { served <- writePlaces(l) }()
	_, err = New(i).Migrate(t.Context(), vmm.MigrateRequest{Destination: "fd:3,4,5", Passed: files}, nil)
	if err == nil {
		t.Error("it migrates")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	for place, r := range readers {
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r) // to the end: nobody has it open any more
		if err != nil || string(text) != fmt.Sprint(place) {
			t.Errorf("file %d: %q, %v", place, text, err)
		}
	}
}

// writePlaces takes one connection, writes the place of each file that comes with
// its first byte into it, and refuses what is asked.
func writePlaces(l *net.UnixListener) error {
	conn, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer conn.Close()
	var text [1 << 10]byte
	var oob [256]byte
	_, oobn, _, _, err := conn.ReadMsgUnix(text[:], oob[:])
	if err != nil {
		return err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	place := 0
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		for _, fd := range fds {
			f := os.NewFile(uintptr(fd), "passed")
			fmt.Fprint(f, place)
			f.Close()
			place++
		}
	}
	_, err = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
	return err
}
