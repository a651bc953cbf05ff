package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"microvm/hack/lab/frame"
)

// outputGrace is how long the session goes on reading the command's output after the command is gone, while some
// descendant of it still holds the other end.
const outputGrace = 500 * time.Millisecond

// session runs the job. Until the port is open it can complain on the kernel's console only.
func session() int {
	signal.Ignore(unix.SIGHUP)
	if err := mounts(); err != nil {
		return consoleError(err)
	}
	if err := insertModules(frame.PortModules); err != nil {
		return consoleError(err)
	}
	port, err := openPort()
	if err != nil {
		return consoleError(err)
	}
	w := frame.NewWriter(port)
	status, err := runJob(port, w)
	if err != nil {
		err = w.Send(frame.Failed, []byte(err.Error()))
	} else {
		err = w.SendUint32(frame.Exit, uint32(status))
	}
	if err != nil {
		return consoleError(err)
	}
	// `lab run` ends the machine when it has read the last frame. To power off now could lose the frame.
	select {}
}

func consoleError(err error) int {
	fmt.Println("lab init:", err)
	return 1
}

// openPort opens the virtio-serial port, which the driver makes some time after it was inserted.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		port, err := os.OpenFile(frame.Port, os.O_RDWR, 0)
		if err == nil || time.Now().After(deadline) {
			return port, err
		}
	}
}

func runJob(port *os.File, w *frame.Writer) (status int, err error) {
	job, err := prepare()
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(job.Args[0], job.Args[1:]...)
	cmd.Env = append(os.Environ(), job.Env...)
	cmd.Dir = job.Dir
	cmd.WaitDelay = outputGrace

	var in commandInput
	if job.Terminal {
		in, err = attachTerminal(cmd, w)
	} else {
		in, err = attachPipes(cmd, w)
	}
	if err != nil {
		return 0, err
	}
	uptime, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return 0, err
	}
	seconds, _, _ := strings.Cut(string(uptime), " ")
	if err := w.Send(frame.Ready, []byte(seconds)); err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	in.started()
	go relay(port, in, cmd.Process.Pid)
	waitErr := cmd.Wait()
	in.drain()
	if cmd.ProcessState == nil {
		return 0, waitErr
	}
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		return 128 + int(ws.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// prepare turns the machine into the KVM host that the job wants and returns the job.
func prepare() (frame.Job, error) {
	var job frame.Job
	b, err := os.ReadFile(frame.JobPath)
	if err != nil {
		return job, err
	}
	if err := json.Unmarshal(b, &job); err != nil {
		return job, fmt.Errorf("%s: %w", frame.JobPath, err)
	}
	if len(job.Args) == 0 {
		return job, errors.New("the job names no command")
	}
	if err := insertModules(frame.HostModules); err != nil {
		return job, err
	}
	if err := keepKVM(); err != nil {
		return job, err
	}
	if err := unix.Sethostname([]byte("lab")); err != nil {
		return job, fmt.Errorf("setting the host name: %w", err)
	}
	return job, loopbackUp()
}

// relay hands what `lab run` sends to the command, until the port closes.
func relay(port *os.File, in commandInput, pid int) {
	for {
		kind, payload, err := frame.Read(port)
		if err != nil {
			fmt.Println("lab init: reading from the port:", err)
			return
		}
		switch kind {
		case frame.Stdin:
			in.write(payload)
		case frame.StdinEOF:
			in.end()
		case frame.Resize:
			in.resize(payload)
		case frame.Signal:
			if sig, err := frame.Uint32(payload); err == nil {
				// The command leads its own process group; gone already is no error.
				_ = unix.Kill(-pid, unix.Signal(sig))
			}
		}
	}
}
