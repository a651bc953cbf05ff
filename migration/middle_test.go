package migration

import (
	"net"
	"sync"
	"testing"
)

// middle is what stands between a source and a destination, on real sockets.
type middle struct {
	ln     net.Listener
	served sync.WaitGroup
}

// stand listens in front of target until the test ends, and has carry serve each
// connection that comes, with another one to target. They are closed when it
// returns. stop ends those that are carried at the end of the test.
func (m *middle) stand(t *testing.T, target Address, carry func(near, far net.Conn), stop func()) Address {
	t.Helper()
	ln, err := Listen(t.Context(), Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	m.ln = ln
	m.served.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			m.served.Go(func() {
				defer near.Close()
				far, err := net.Dial(target.Network, target.Target)
				if err != nil {
					return
				}
				defer far.Close()
				carry(near, far)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		stop()
		m.served.Wait()
	})
	return ListenAddress(ln)
}
