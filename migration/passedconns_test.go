package migration

import (
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// A source that cannot go on with one of its connections closes all of them, and
// says what was wrong: the other end waits for none of them.
func TestConnectionsThatWerePassedAndAreOfNoUse(t *testing.T) {
	var far []net.Conn
	ended := make(chan struct{})
	addr := rawListener(t, func(ln net.Listener) {
		defer close(ended)
		for range 6 {
			far = append(far, accept(t, ln))
		}
		far[0].Close() // as a destination does that has waited for a hello
	})
	var near []net.Conn
	for range 6 {
		near = append(near, dial(t, addr))
	}
	<-ended
	dest, err := ParseDestination("fd:3,4,5,6,7,8")
	if err != nil {
		t.Fatal(err)
	}
	s := send(t, &ledger{}, dest, Options{Connections: 4, Passed: near, Recover: time.Hour})
	says(t, s.run(), "main channel to fd:3,4,5,6,7,8", "2.5s", "just before")
	s.stayed()
	for i, c := range far[1:] {
		if n, err := io.Copy(io.Discard, c); n != 0 || err != nil {
			t.Errorf("connection %d: %d bytes, %v", i+1, n, err)
		}
	}
}

func TestConnectionsThatWerePassedAreAsManyAsItTakes(t *testing.T) {
	m := newTestMachine(t, 4096)
	tcp := Address{"tcp", "127.0.0.1:1"}
	for _, c := range []struct {
		dest        string
		connections int
		passed      int
		want        string
	}{
		{"fd:3", 0, 1, "over 1 connections has 2 channels, main and urgent"},
		{"fd:3,4,5", 1, 3, "main and urgent"},
		{"fd:3,4", 2, 2, "over 2 connections has 4 channels, main, urgent and 2 for memory"},
		{"fd:3,4", 1, 1, "1 connections were passed for a migration to fd:3,4, which takes 2"},
		{tcp.String(), 1, 2, "2 connections were passed for a migration to tcp:127.0.0.1:1, which takes 0"},
	} {
		dest, err := ParseDestination(c.dest)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewSource(m, dest, Options{Connections: c.connections, Passed: make([]net.Conn, c.passed)})
		says(t, err, c.want)
	}
	many := "fd:3" + strings.Repeat(",4", 18)
	for text, want := range map[string]string{
		"fd:":    "write fd:N",
		"fd:3,":  "write fd:N",
		"fd:3 4": "write fd:N",
		"fd:4,2": "stdin, stdout and stderr",
		"fd:5,5": "twice",
		many:     "twice",
		"udp:1":  "write tcp:HOST:PORT",
	} {
		_, err := ParseDestination(text)
		says(t, err, want)
	}
}
