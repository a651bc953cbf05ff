package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"microvm/vmm"
)

// A detached VM's process is this program again, in a session of its own. It
// inherits the VM's locked state directory, so that the name is never free in
// between, and a pipe by which it says that it runs.
const (
	// detachedEnv tells the child what it is: its value is the path of the
	// pid file.
	detachedEnv  = "MICROVM_DETACHED_PID_FILE"
	detachedLock = 3 // the pid file
	detachedPipe = 4
)

// launchReport is what comes through the pipe: nothing has failed, or what.
type launchReport struct {
	Status int    `json:"status"`
	Error  string `json:"error"`
}

// runDetached starts the child with this process's own command line, and
// returns when it says that the VM runs, or why not.
func runDetached(v newVM, o sessionOptions, stdout io.Writer) error {
	if path, child := os.LookupEnv(detachedEnv); child {
		return runAsChild(path, v, o)
	}
	dir, err := vmm.OpenStateDir(v.name)
	if err != nil {
		return err
	}
	report, err := launch(dir, v.name)
	if err != nil {
		return dirFailed(dir, err)
	}
	if report.Error != "" {
		return &exitError{status: report.Status, err: errors.New(report.Error)}
	}
	fmt.Fprintln(stdout, v.name)
	return nil
}

// launch starts the child and waits for its report. Without an error the
// state directory is the child's.
func launch(dir *vmm.StateDir, name string) (launchReport, error) {
	log, err := os.OpenFile(dir.LogPath(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return launchReport{}, err
	}
	defer log.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return launchReport{}, err
	}
	defer r.Close()
	child := exec.Command("/proc/self/exe", append(os.Args[1:], "--name", name)...)
	// The child leaves the working directory, from which a path may have been said.
	child.Env = append(os.Environ(), detachedEnv+"="+dir.File().Name(), vmm.StateDirEnv+"="+filepath.Dir(dir.Path))
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{detachedLock - 3: dir.File(), detachedPipe - 3: w}
	child.SysProcAttr = &unix.SysProcAttr{Setsid: true}
	if err := closeOnExec(); err != nil {
		return launchReport{}, err
	}
	err = child.Start()
	w.Close()
	if err != nil {
		return launchReport{}, err
	}
	dir.File().Close() // the child's copy holds the lock
	var report launchReport
	if err := json.NewDecoder(r).Decode(&report); err != nil {
		err = child.Wait()
		return launchReport{Status: exitFailure, Error: fmt.Sprintf("the VM's process ended before the VM ran (%v): see %s", err, dir.LogPath())}, nil
	}
	return report, nil
}

// closeOnExec keeps what this process was passed, by a shell for instance, from
// whatever it starts: a pipe that the VM held open would have its reader wait.
func closeOnExec() error {
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("which files are open: %w", err)
	}
	for _, e := range fds {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
	return nil
}

// runAsChild is the VM's process.
func runAsChild(pidFile string, v newVM, o sessionOptions) error {
	os.Unsetenv(detachedEnv)
	unix.CloseOnExec(detachedLock)
	unix.CloseOnExec(detachedPipe)
	pipe := os.NewFile(detachedPipe, "detach pipe")
	tell := func(report launchReport) {
		if err := json.NewEncoder(pipe).Encode(report); err != nil {
			slog.Warn("nobody waits for this VM to run", "err", err)
		}
		pipe.Close()
	}
	dir, err := vmm.AdoptStateDir(filepath.Base(filepath.Dir(pidFile)), os.NewFile(detachedLock, pidFile))
	if err != nil {
		tell(launchReport{Status: exitFailure, Error: err.Error()})
		return err
	}
	// Every path is absolute by now: no file system is kept from being unmounted.
	if err := os.Chdir("/"); err != nil {
		slog.Warn("this process keeps its working directory", "err", err)
	}
	o.log.keepLast = true
	runs := false
	err = runIn(context.Background(), dir, v, o, func() {
		runs = true
		tell(launchReport{})
	})
	if err != nil && !runs {
		tell(launchReport{Status: exitStatus(err), Error: err.Error()})
	}
	return err
}
