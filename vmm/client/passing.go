package client

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
)

// A passer is the client's end of a connection that passes files with the first
// bytes that it writes, and closes them then.
type passer struct {
	*net.UnixConn
	files []*os.File
}

func (p *passer) Write(b []byte) (int, error) {
	if p.files == nil {
		return p.UnixConn.Write(b)
	}
	var fds []int
	for _, f := range p.files {
		fds = append(fds, int(f.Fd()))
	}
	n, _, err := p.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err != nil {
		return n, fmt.Errorf("pass %d descriptors: %w", len(fds), err)
	}
	// Here they would keep the connections open that the other side closes.
	for _, f := range p.files {
		f.Close()
	}
	p.files = nil
	if n < len(b) {
		var rest int
		rest, err = p.UnixConn.Write(b[n:])
		n += rest
	}
	return n, err
}

// passing gives a client like c whose next call passes files along, and no other
// is made with.
func (c *Client) passing(files []*os.File) *Client {
	p := *c
	p.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := c.dial(ctx)
			if err != nil {
				return nil, err
			}
			return &passer{conn.(*net.UnixConn), files}, nil
		},
	}}
	return &p
}
