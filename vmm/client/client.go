// Package client talks to running VMs: it finds them by name in their user's
// state directory, and calls the API that each answers on its socket.
// It starts nothing and needs no KVM.
//
//	c, err := client.Dial("a")
//	info, err := c.Info(ctx)
//
// What goes over the socket are types of the packages that make it: a VM's of
// [microvm/vmm], a migration's of [microvm/migration].
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"time"

	"microvm/devices/virtio/balloon"
	"microvm/vmm"
)

// maxReply bounds what the client takes from an API that it does not trust
// more than it has to.
const maxReply = 1 << 20

// goneEvery is how often Gone looks.
const goneEvery = 5 * time.Millisecond

// A Client talks to the API of one running VM.
type Client struct {
	Instance vmm.Instance
	// OnEvent, if not nil, is called with each event of the log of a migration
	// that is followed: a migration.Event.
	OnEvent func(json.RawMessage)
	http    *http.Client
}

// Dial finds the VM called name. [vmm.ErrNoSuchVM] if there is none, or if it does
// not run any more.
func Dial(name string) (*Client, error) {
	i, err := vmm.FindInstance(name)
	if err != nil {
		return nil, err
	}
	if !i.Running {
		return nil, fmt.Errorf("%s: %w: it does not run any more", name, vmm.ErrNoSuchVM)
	}
	return New(i), nil
}

// New makes a client for a VM that [vmm.Instances] or [vmm.FindInstance] found.
func New(i vmm.Instance) *Client {
	c := &Client{Instance: i}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.dial(ctx) },
	}}
	return c
}

// dial connects to the API.
func (c *Client) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "unix", c.Instance.APISocket())
}

// Do makes one call: in, if not nil, is the request's body, out, if not nil,
// takes the reply's: as it is a *[]byte, anything else from JSON. An error that the VM reported is a *vmm.APIError.
func (c *Client) Do(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return fmt.Errorf("VM %s: %s %s: %w", c.Instance.Name, method, path, err)
	}
	if text, ok := out.(*[]byte); ok {
		*text = b
		return nil
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("VM %s: %s %s: reply: %w", c.Instance.Name, method, path, err)
	}
	return nil
}

// send makes a call and returns the reply, or the error in it.
func (c *Client) send(ctx context.Context, method, path string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+c.Instance.Name+path, body)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("VM %s: %w", c.Instance.Name, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxReply))
	if err != nil {
		return nil, fmt.Errorf("VM %s: %s %s: %w", c.Instance.Name, method, path, err)
	}
	failed := &vmm.APIError{}
	if json.Unmarshal(b, failed) != nil || failed.Message == "" {
		return nil, fmt.Errorf("VM %s: %s %s: %s", c.Instance.Name, method, path, resp.Status)
	}
	failed.Classify() // a process of an older version does not say
	return nil, failed
}

// Info describes the VM.
func (c *Client) Info(ctx context.Context) (vmm.Info, error) {
	var info vmm.Info
	err := c.Do(ctx, http.MethodGet, "/v1/vm", nil, &info)
	return info, err
}

// Stats is what the VM has counted.
func (c *Client) Stats(ctx context.Context) (vmm.Stats, error) {
	var s vmm.Stats
	err := c.Do(ctx, http.MethodGet, "/v1/vm/stats", nil, &s)
	return s, err
}

// Metrics is what the VM shows to Prometheus, in its text format.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.Do(ctx, http.MethodGet, "/v1/metrics", nil, &text)
	return text, err
}

// Pause stops the VM's vCPUs until Resume.
func (c *Client) Pause(ctx context.Context) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/pause", nil, nil)
}

// Resume lets a paused VM run on.
func (c *Client) Resume(ctx context.Context) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/resume", nil, nil)
}

// GrowDisks has the VM look whether the files of its disks have grown.
func (c *Client) GrowDisks(ctx context.Context) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/grow", nil, nil)
}

// SetBalloon has the VM's balloon take so many bytes from the guest.
func (c *Client) SetBalloon(ctx context.Context, bytes uint64) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/balloon", vmm.BalloonRequest{Size: bytes}, nil)
}

// Balloon describes the VM's balloon.
func (c *Client) Balloon(ctx context.Context) (balloon.Stats, error) {
	var s balloon.Stats
	err := c.Do(ctx, http.MethodGet, "/v1/vm/balloon", nil, &s)
	return s, err
}

// ResizeConsole says what size the terminal has on which the VM's console shows.
func (c *Client) ResizeConsole(ctx context.Context, size vmm.ConsoleSize) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/console/size", size, nil)
}

// Stop ends the VM: see [vmm.StopRequest].
func (c *Client) Stop(ctx context.Context, force bool, timeout time.Duration) error {
	return c.Do(ctx, http.MethodPut, "/v1/vm/stop", vmm.StopRequest{Force: force, Timeout: timeout}, nil)
}

// Wait returns when the VM has ended.
func (c *Client) Wait(ctx context.Context) (vmm.ExitStatus, error) {
	var exit vmm.ExitStatus
	err := c.Do(ctx, http.MethodGet, "/v1/vm/wait", nil, &exit)
	return exit, err
}

// Gone returns when the VM's process has given its name back, which is a moment
// after the VM has ended. The Instance says then what it left.
func (c *Client) Gone(ctx context.Context) error {
	for {
		i, err := vmm.FindInstance(c.Instance.Name)
		if errors.Is(err, vmm.ErrNoSuchVM) {
			c.Instance = vmm.Instance{Name: c.Instance.Name, Path: c.Instance.Path}
			return nil
		}
		if err != nil {
			return err
		}
		if c.Instance = i; !i.Running {
			return nil
		}
		select {
		case <-time.After(goneEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Console connects to the VM's console: what is written is typed, what is
// read is what the guest prints, beginning with the last of what it printed
// before.
func (c *Client) Console(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", c.Instance.ConsoleSocket())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("VM %s has no console: it was started with --console off, or is about to begin or to end", c.Instance.Name)
	}
	if err != nil {
		return nil, fmt.Errorf("VM %s: console: %w", c.Instance.Name, err)
	}
	return conn, nil
}
