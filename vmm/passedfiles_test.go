package vmm

import (
	"net"
	"path/filepath"
	"testing"
	"time"
)

// TestAReadThatFailsHasReadNothing: net/http panics if it has read less.
func TestAReadThatFailsHasReadNothing(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "api")})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := passingListener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 8)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
}
