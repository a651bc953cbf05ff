// Command vsock is a guest's end of AF_VSOCK for tests, since busybox has none.
//
//	vsock echo PORT          sends back what comes, to whoever connects
//	vsock send PORT BYTES    connects to the host, sends so many bytes and wants them back
//	vsock hold PORT          connects to the host, and says how the connection ends
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("VSOCK BAD", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	var numbers []int
	for _, text := range args[min(1, len(args)):] {
		n, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		numbers = append(numbers, n)
	}
	switch {
	case len(numbers) == 1 && args[0] == "echo":
		return echo(uint32(numbers[0]))
	case len(numbers) == 1 && args[0] == "hold":
		return hold(uint32(numbers[0]))
	case len(numbers) == 2 && args[0] == "send":
		return send(uint32(numbers[0]), numbers[1])
	}
	return errors.New("usage: vsock echo PORT | send PORT BYTES | hold PORT")
}

func socket() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("AF_VSOCK: %w", err)
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

func connect(port uint32) (*os.File, error) {
	f, err := socket()
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(int(f.Fd()), &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: port}); err != nil {
		return nil, fmt.Errorf("connect to port %d: %w", port, err)
	}
	return f, nil
}

func echo(port uint32) error {
	f, err := socket()
	if err != nil {
		return err
	}
	if err := unix.Bind(int(f.Fd()), &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		return err
	}
	if err := unix.Listen(int(f.Fd()), 16); err != nil {
		return err
	}
	fmt.Println("vsock echoes on port", port)
	for {
		fd, _, err := unix.Accept(int(f.Fd()))
		if err != nil {
			return err
		}
		go func() {
			c := os.NewFile(uintptr(fd), "connection")
			defer c.Close()
			_, err := io.Copy(c, c)
			fmt.Println("vsock echo ended:", err)
		}()
	}
}

func send(port uint32, n int) error {
	f, err := connect(port)
	if err != nil {
		return err
	}
	want := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := f.Write(want)
		sent <- errors.Join(err, unix.Shutdown(int(f.Fd()), unix.SHUT_WR))
	}()
	got, err := io.ReadAll(f)
	if err := errors.Join(<-sent, err); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("%d bytes came back, not the %d that were sent", len(got), n)
	}
	fmt.Println("vsock", n, "bytes came back from port", port)
	return f.Close()
}

func hold(port uint32) error {
	f, err := connect(port)
	if err != nil {
		return err
	}
	fmt.Println("vsock holds port", port)
	_, err = io.Copy(io.Discard, f)
	fmt.Println("vsock hold ended:", errors.Is(err, unix.ECONNRESET), err)
	return nil
}
