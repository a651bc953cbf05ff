package migration

import (
	"bufio"
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"microvm/migration/tlstest"
	"microvm/migration/wire"
)

// aChecker finds one thing well and another missing.
func aChecker(_ context.Context, config []byte) []Finding {
	return []Finding{
		{What: "cpu", Status: FindingOK, Text: "all of it"},
		{What: "memory", Status: FindingMissing, Text: "a machine of \x1b[2J" + string(config)},
	}
}

// asks is what a source that would migrate to r is told.
func (r *receiver) asks(t *testing.T, opt Options) Outlook {
	t.Helper()
	s := send(t, &ledger{}, r.addr, opt)
	found, err := s.source.Check(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// stopsFor gives the texts of what would stop it, by name.
func stopsFor(o Outlook) map[string]string {
	stops := map[string]string{}
	for _, f := range o.Stops() {
		stops[f.What] = f.Text
	}
	return stops
}

// A destination that was asked, as often as anybody likes, waits on for the
// migration; the guest of who asks is not touched.
func TestADestinationThatIsAskedWaitsOn(t *testing.T) {
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Check: aChecker, Program: "v7", MaxConnections: 2}, buildOwned(t, l, nil))
	s := send(t, l, r.addr, Options{Connections: 3})
	for range 3 {
		found, err := s.source.Check(t.Context())
		if err != nil || found.Program != "v7" {
			t.Fatalf("%+v, %v", found, err)
		}
		stops := stopsFor(found)
		if len(stops) != 2 || !strings.Contains(stops["connections"], "3 connections, this side takes at most 2") ||
			!strings.Contains(stops["memory"], "the destination says: a machine of  [2J{") {
			t.Errorf("%q", stops)
		}
		ok := ""
		for _, f := range found.Findings {
			if f.Status == FindingOK {
				ok += f.What + " "
			}
		}
		if ok != "reachable version userfaultfd settings cpu " {
			t.Errorf("%q are fine", ok)
		}
	}
	if s.ledger.paused+s.ledger.handed+s.ledger.ran > 0 || r.dest.Phase() != PhaseSetup {
		t.Errorf("%+v, the destination is in phase %s", s.ledger, r.dest.Phase())
	}
	if err := errors.Join(send(t, l, r.addr, Options{Verify: true}).run(), r.wait()); err != nil {
		t.Error(err)
	}
}

func TestWhyNobodyAnswersHasAName(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	secure, foreign := sourceTLS(t, dir, ""), sourceTLS(t, tlstest.NewCA(t).Folder(), "")
	l := &ledger{}
	plain := receiveWith(t, l, DestinationOptions{Check: aChecker}, buildOwned(t, l, nil))
	within := receiveWith(t, l, DestinationOptions{Check: aChecker, TLS: destTLS(t, dir)}, buildOwned(t, l, nil))
	mute := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	closed := receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, nil))
	closed.kill()
	for _, c := range []struct {
		r          *receiver
		opt        Options
		what, want string
	}{
		{within, Options{}, "tls", "TLS is needed here"},
		{plain, Options{TLS: secure}, "tls", "both sides need --tls-dir"},
		{within, Options{TLS: foreign}, "tls", "is not signed by the CA"},
		{mute, Options{}, "refused", "answers no probes"},
		{closed, Options{}, "reachable", "connection refused"},
	} {
		found := c.r.asks(t, c.opt)
		if stops := stopsFor(found); len(stops) != 1 || !strings.Contains(stops[c.what], c.want) {
			t.Errorf("%q, want %s with %q", stops, c.what, c.want)
		}
	}
	if stops := stopsFor(within.asks(t, Options{TLS: secure})); len(stops) != 1 || stops["memory"] == "" {
		t.Errorf("within TLS: %q", stops)
	}
}

// What a destination of another version answers, or one that is no microvm.
func TestADestinationThatAnswersOtherwiseIsNamed(t *testing.T) {
	clipped := func(b []byte) []byte { return b[:len(b)-3] }
	for name, c := range map[string]struct {
		welcome    wire.Welcome
		then       []byte
		what, want string
	}{
		"an earlier version":          {wire.Welcome{Refusal: "role 4 " + unknownRole + " (1)"}, nil, "version", "answers no questions"},
		"a later version":             {wire.Welcome{Refusal: otherVersions + " 1 to 1 of the stream, this side 2"}, nil, "version", "run the same version on both hosts"},
		"a version that was not said": {wire.Welcome{Version: 3}, nil, "version", "chose version 3"},
		"nothing":                     {wire.Welcome{Version: 1}, nil, "reachable", "does not answer the question"},
		"half an answer":              {wire.Welcome{Version: 1}, clipped(wire.AppendFindings(nil, wire.Findings{})), "reachable", "EOF"},
		"another message":             {wire.Welcome{Version: 1}, wire.AppendShut(nil, 0), "reachable", "SHUT: in answer to a probe"},
		"that it did not understand":  {wire.Welcome{Version: 1}, wire.AppendFailed(nil, wire.Failed{Text: "what?"}), "reachable", "what?"},
		"a status nobody knows":       {wire.Welcome{Version: 1}, wire.AppendFindings(nil, wire.Findings{Findings: []Finding{{What: "cpu", Status: "odd"}}}), "reachable", `status "odd"`},
	} {
		t.Run(name, func(t *testing.T) {
			addr := rawListener(t, func(ln net.Listener) {
				d := accept(t, ln)
				if _, err := wire.ReadHello(d); err != nil {
					return
				}
				d.Write(c.welcome.Append(nil))
				if h, err := wire.ReadHeader(d); err == nil {
					_, _ = wire.ReadBody(d, h)
				}
				d.Write(c.then)
				d.Close()
			})
			found, err := send(t, &ledger{}, addr, Options{}).source.Check(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if stops := stopsFor(found); len(stops) != 1 || !strings.Contains(stops[c.what], c.want) {
				t.Errorf("%q, want %s with %q", stops, c.what, c.want)
			}
		})
	}
}

// Strangers who ask in a way that nobody should are refused with the reason, and
// neither they nor many who ask at once keep the migration away.
func TestStrangersWhoAskCostLittle(t *testing.T) {
	var checking atomic.Int32
	inside, leave := make(chan struct{}, 2*maxProbes), make(chan struct{})
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{Check: func(ctx context.Context, config []byte) []Finding {
		checking.Add(1)
		inside <- struct{}{}
		<-leave
		return aChecker(ctx, config)
	}}, buildOwned(t, l, nil))
	hello := helloOf(newID(), wire.RoleProbe)
	refused := func(change func(h *wire.Hello), want string) {
		t.Helper()
		h := hello
		change(&h)
		if _, w := open(t, r.addr, h); w.Version != 0 || !strings.Contains(w.Refusal, want) {
			t.Errorf("%+v: %+v, want %q", h, w, want)
		}
	}
	refused(func(h *wire.Hello) { h.Index = 1 }, "probe channel 1")
	refused(func(h *wire.Hello) { h.Resume = true }, "resume true")
	for _, message := range [][]byte{
		advise(), runMessage, zeros(0, 0, 9), []byte("GET / HTTP/1.1\r\n\r\n"),
		wire.AppendHeader(nil, wire.Header{Type: wire.TypeConfig, Length: 1<<20 + 1}),
	} {
		c, w := open(t, r.addr, hello)
		if w.Version != wire.Version {
			t.Fatalf("refused: %s", w.Refusal)
		}
		c.Write(message)
		typ, body, err := wire.ReadReturn(bufio.NewReader(c), make([]byte, wire.MaxReturnBody))
		if err != nil || typ != wire.ReturnFailed || len(wire.DecodeFailed(body).Text) == 0 {
			t.Errorf("%.20q is answered by %v, %v", message, typ, err)
		}
	}
	// As many as are answered at a time, and one more.
	for range maxProbes {
		c, w := open(t, r.addr, hello)
		if w.Version != wire.Version {
			t.Fatalf("refused: %s", w.Refusal)
		}
		c.Write(config(nil))
		select {
		case <-inside:
		case <-time.After(patience):
			t.Fatal("a probe is not looked at")
		}
	}
	refused(func(*wire.Hello) {}, "4 probes are being answered already")
	// A migration does not wait for them, and nobody is answered during it.
	s := newRawSource(t, r.addr)
	refused(func(*wire.Hello) {}, "under way here already")
	s.main.Close()
	r.wait()
	close(leave)
	if n := checking.Load(); n != maxProbes {
		t.Errorf("%d were looked at, want %d", n, maxProbes)
	}
}
