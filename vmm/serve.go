package vmm

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// drainTime bounds how long the last answers and the last of the
	// console's output may take when a VM has ended.
	drainTime = 2 * time.Second
	// requestTime bounds how long a client may take to send a request's
	// header, and then its body.
	requestTime = 10 * time.Second
)

// A Server is what a process that has a VM shows to others: the sockets in the
// VM's state directory. It may be there before the VM is, for one that is to
// arrive.
//
//	s, err := Listen(dir, console, log)
//	vm, err := New(ctx, config, options) // or NewIncoming, much later
//	err = s.Serve(ctx, vm, vm.Start)
type Server struct {
	API *API

	dir     *StateDir
	log     *slog.Logger
	console *Console
	http    *http.Server
	// stop ends what viewers are served; viewers counts them.
	stop    context.CancelFunc
	viewers sync.WaitGroup
	screen  net.Listener // nil without a console
}

// Listen opens the sockets of dir and answers on them. Without a console there
// is no console socket. Close gives the directory back.
func Listen(dir *StateDir, console *Console, log *slog.Logger) (*Server, error) {
	ctx, stop := context.WithCancel(context.Background())
	s := &Server{API: NewAPI(dir.Name), dir: dir, log: log, console: console, stop: stop}
	s.http = &http.Server{
		Handler: s.API,
		// Not ReadTimeout: when that is over, net/http gives up a request
		// that has long been read and is still being worked on, such as a
		// wait. readJSON bounds the body.
		ReadHeaderTimeout: requestTime,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ConnContext:       withPassing,
	}
	api, err := dir.listen(apiSocket)
	if err != nil {
		stop()
		return nil, err
	}
	if console != nil {
		if s.screen, err = dir.listen(consoleSocket); err != nil {
			stop()
			return nil, errors.Join(err, api.Close())
		}
		go s.serveConsole(ctx)
	}
	go func() {
		if err := s.http.Serve(passingListener{api}); !errors.Is(err, http.ErrServerClosed) {
			log.Error("the API has ended", "err", err)
		}
	}()
	return s, nil
}

func (s *Server) serveConsole(ctx context.Context) {
	for {
		conn, err := s.screen.Accept()
		if err != nil {
			return // closed
		}
		s.viewers.Go(func() { s.console.Attach(ctx, conn) })
	}
}

// Wait returns when vm has ended, and how: see VM.Wait. When ctx ends first,
// the VM is stopped, whatever that costs.
func (s *Server) Wait(ctx context.Context, vm *VM) error {
	select {
	case <-vm.Done():
	case <-vm.Lost():
	case <-ctx.Done():
		vm.Stop()
	}
	return vm.Wait(context.Background())
}

// Serve shows vm until it has ended, and returns how: see VM.Wait. ready is
// called once others can reach the VM; run starts it there. When ctx ends, the
// VM is stopped, whatever that costs. It takes over vm and closes both; of a VM
// that is lost nothing can be freed.
func (s *Server) Serve(ctx context.Context, vm *VM, ready func() error) error {
	s.API.Attach(vm)
	err := ready()
	if err == nil {
		err = s.Wait(ctx, vm)
	}
	vm.Stop() // it may never have run
	exit := vm.ExitStatus()
	if err != nil {
		exit = ExitStatus{Code: ExitCode(err), Reason: err.Error()}
	}
	s.log.Info("the VM has ended", "vm", vm.Name(), "how", exit.Reason)
	closing := s.Close(exit)
	select {
	case <-vm.Lost():
	default:
		closing = errors.Join(closing, vm.Close())
	}
	if closing != nil {
		s.log.Error("cleaning up after the VM", "vm", vm.Name(), "err", closing)
	}
	return err
}

// Close tells whoever looks how it ended, lets the last answers out, and gives
// the state directory back.
func (s *Server) Close(exit ExitStatus) error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	if s.console != nil {
		s.console.Notice(exit.Reason)
		s.screen.Close()
	}
	s.stop()
	// A viewer that does not read is left behind.
	gone := make(chan struct{})
	go func() { s.viewers.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-ctx.Done():
	}
	if err := s.http.Shutdown(ctx); err != nil {
		s.http.Close()
	}
	var printed []byte
	if s.console != nil {
		printed = s.console.last()
	}
	return s.dir.Release(exit, printed)
}
