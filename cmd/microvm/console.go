package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"microvm/devices/console"
	"microvm/vmm"
	"microvm/vmm/client"
)

var consoleCommand = command{
	name:    "console",
	summary: "Connect this terminal to a VM's console",
	usage:   "console VM [--reconnect]",
	about: `
Shows the last 64 KiB of what the guest printed, then what it prints; what is typed
goes to the guest. Ctrl-a x leaves, the VM runs on; Ctrl-a h lists the keys, Ctrl-a
Ctrl-a sends Ctrl-a. Any number of terminals may be connected; one that does not
read misses some, and is told so.

A virtio console (run --virtio-console) gets the size of this terminal, and hears
when it changes: of several terminals, the last that was attached or resized. A
serial port has no size: type stty columns 80 rows 24 in the guest.

When the VM ends or has moved, its process says which, and the command ends. With
--reconnect it waits for the next VM of that name on this host: one that is started
again, or that comes back. It need not be there at the beginning either.

Without a terminal, what is read from stdin is typed, and the command ends
with the VM.`,
	examples: []string{"microvm console a", "microvm console a --reconnect"},
	prepare: func(flags *pflag.FlagSet) runner {
		reconnect := flags.Bool("reconnect", false, "when the VM has ended, wait for the next of its name")
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			name, err := oneVM(args)
			if err != nil {
				return err
			}
			if err := vmm.ValidateName(name); err != nil {
				return usagef("%v", err)
			}
			s := &screen{name: name, stdout: stdout, terminal: term.IsTerminal(int(os.Stdin.Fd()))}
			if !*reconnect {
				if err := s.open(ctx); err != nil {
					return err
				}
			}
			restore, err := console.Raw(os.Stdin)
			if err != nil {
				return err
			}
			return errors.Join(s.show(ctx, *reconnect), restore())
		}
	},
}

const (
	// reconnectEvery is how often a VM is looked for that is not there.
	reconnectEvery = 200 * time.Millisecond
	// goneTime is how long a process may take to end after its console has.
	goneTime = time.Second
)

// A screen is a terminal, or what stands for one, as a VM's console.
type screen struct {
	name     string
	stdout   io.Writer
	terminal bool
	instance vmm.Instance // that conn is to

	mu sync.Mutex
	// conn is to the VM's console, nil while there is none; guarded by mu.
	conn net.Conn
}

// open connects to the console.
func (s *screen) open(ctx context.Context) error {
	c, err := client.Dial(s.name)
	if err != nil {
		return err
	}
	conn, err := c.Console(ctx)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.instance, s.conn = c.Instance, conn
	return nil
}

// close ends the connection, if there is one.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
	}
	s.conn = nil
}

// connection is the one there is, or nil.
func (s *screen) connection() net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.conn
}

// typed goes to the VM that is connected. What nobody is there for is dropped.
func (s *screen) typed(p []byte) error {
	if conn := s.connection(); conn != nil {
		// A connection that has ended is noticed where it is read.
		_, _ = conn.Write(p)
	}
	return nil
}

// show shows the console until the user leaves, or the VM ends and no other is to
// be waited for.
func (s *screen) show(ctx context.Context, reconnect bool) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	if s.terminal {
		// So that it does not stay raw.
		var stop context.CancelFunc
		ctx, stop = signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGHUP)
		defer stop()
	}
	defer context.AfterFunc(ctx, s.close)()
	go func() {
		if err := typeFrom(os.Stdin, s.typed); errors.Is(err, console.ErrLeave) {
			leave()
		}
	}()
	for {
		if s.connection() == nil {
			if err := s.wait(ctx); err != nil {
				return nil // left
			}
		}
		err := s.attached(ctx)
		if ctx.Err() != nil {
			return nil // left
		}
		s.close()
		if !reconnect {
			return err
		}
		if err != nil {
			s.say("%v", err)
		}
	}
}

// wait returns when the VM's console is connected, or with an error when ctx ends.
func (s *screen) wait(ctx context.Context) error {
	for told := false; s.open(ctx) != nil; {
		if !told {
			s.say("waiting for VM %s; Ctrl-a x leaves", s.name)
			told = true
		}
		select {
		case <-time.After(reconnectEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return ctx.Err()
}

// attached shows what the guest prints until the connection ends. The VM's process
// says there why; an error is what it could not say.
func (s *screen) attached(ctx context.Context) error {
	conn := s.connection()
	if conn == nil {
		return nil // left
	}
	if s.terminal {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		c := client.New(s.instance)
		s.greet(ctx, c)
		followSize(ctx, os.Stdin, func(columns, rows uint16) {
			// Without a virtio console there is nobody to tell.
			_ = c.ResizeConsole(ctx, vmm.ConsoleSize{Columns: columns, Rows: rows})
		})
	}
	_, err := io.Copy(s.stdout, conn)
	ctx, cancel := context.WithTimeout(ctx, goneTime)
	defer cancel()
	c := client.New(s.instance)
	if gone := c.Gone(ctx); gone == nil && c.Instance.Dead {
		return fmt.Errorf("VM %s: no word from it any more: %s", s.name, vmm.WhyDead)
	}
	return err
}

// greet says what this terminal is the console of.
func (s *screen) greet(ctx context.Context, c *client.Client) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	note := ""
	if info, err := c.Info(ctx); err == nil && info.State != vmm.StateIncoming && !info.VirtioConsole {
		note = "; a serial port: it does not hear of this terminal's size"
	}
	s.say("console of %s; Ctrl-a x leaves%s", s.name, note)
}

// say tells the user something on a line of its own.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "[microvm: "+format+"]\r\n", args...)
}
