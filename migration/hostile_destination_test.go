package migration

import (
	"errors"
	"net"
	"testing"

	"microvm/migration/wire"
)

// A case of a destination that breaks the rules: what it does once both
// channels are open, and what the source's error has to say.
type hostileDest struct {
	name string
	play func(d *rawDest)
	want []string
}

// toPing and toPackage are where a hostile destination stops to behave.
func toPing(then func(d *rawDest)) func(d *rawDest) {
	return func(d *rawDest) { d.until(wire.TypeAdvise); then(d) }
}

func toPackage(then func(d *rawDest)) func(d *rawDest) {
	return func(d *rawDest) { d.until(wire.TypePackaged); then(d) }
}

func toRun(then func(d *rawDest)) func(d *rawDest) {
	return func(d *rawDest) {
		d.until(wire.TypePackaged)
		d.send(wire.AppendLoaded(nil, 1))
		d.until(wire.TypeRun)
		then(d)
	}
}

func toComplete(then func(d *rawDest)) func(d *rawDest) {
	return func(d *rawDest) { d.running(); d.until(wire.TypeComplete); then(d) }
}

// sends gives a destination that sends these messages.
func sends(messages ...[]byte) func(d *rawDest) {
	return func(d *rawDest) { d.send(messages...) }
}

func hangsUp(d *rawDest) { d.hangUp() }

var (
	req   = wire.AppendReqPages
	pong  = wire.AppendPong
	shut0 = wire.AppendShut(nil, 0)
	ran   = wire.AppendRunning(nil, wire.Running{Time: 1, ResumeNanos: 1})
)

func TestAHostileDestinationBeforeRunCostsNothing(t *testing.T) {
	for _, c := range []hostileDest{
		{"hangs up at once", hangsUp, []string{"the destination closed"}},
		{"resets the connection", func(d *rawDest) { d.main.(*net.TCPConn).SetLinger(0); d.main.Close() }, []string{"the destination closed"}},
		{"hangs up the urgent channel, then main", func(d *rawDest) { d.urgent.Close(); d.hangUp() }, []string{"the destination closed"}},
		{"a message that nobody knows", toPing(sends(wire.AppendHeader(nil, wire.Header{Type: 99}))), []string{"type 99"}},
		{"PONG too long", toPing(sends(wire.AppendHeader(nil, wire.Header{Type: 2, Length: 5}))), []string{"PONG", "5 bytes"}},
		{"another PONG", toPing(sends(pong(nil, 99))), []string{"PONG", "number 99, not 0"}},
		{"too many PONGs", toPing(sends(pong(nil, 0), pong(nil, 0), pong(nil, 0))), []string{"PONG"}},
		{"LOADED before the package", toPing(sends(wire.AppendLoaded(nil, 1))), []string{"LOADED", "out of place"}},
		{"REQ_PAGES before the package", toPing(sends(req(nil, "ram0", 0, 4096))), []string{"REQ_PAGES", "before the package"}},
		{"SHUT 0", toPing(sends(shut0)), []string{"closed"}},
		{"SHUT 5", toPing(sends(wire.AppendShut(nil, 5))), []string{"closed"}},
		{"STATS of garbage", toPing(sends(wire.AppendStats(nil, []byte("{{{{")))), []string{"STATS"}},
		{"hangs up inside a message", toPing(func(d *rawDest) { d.send(pong(nil, 0)[:6]); d.hangUp() }), []string{"EOF"}},

		{"hangs up at the package", toPackage(hangsUp), []string{"EOF"}},
		{"SHUT 0 at the package", toPackage(sends(shut0)), []string{"closed"}},
		{"REQ_PAGES, the first without a name", toPackage(sends(req(nil, "", 0, 4096))), []string{"REQ_PAGES", "names no RAM block"}},
		{"REQ_PAGES of an unknown block", toPackage(sends(req(nil, "vga", 0, 4096))), []string{"REQ_PAGES", `"vga"`}},
		{"REQ_PAGES that begins past the end", toPackage(sends(req(nil, "ram0", 1<<20, 4096))), []string{"REQ_PAGES", `"ram0"`, "0x100000"}},
		{"REQ_PAGES that ends past the end", toPackage(sends(req(nil, "ram1", 0, 8192))), []string{"REQ_PAGES", `"ram1"`, "0x2000"}},
		{"REQ_PAGES past the end of the block before", toPackage(sends(req(nil, "ram1", 0, 4096), req(nil, "", 4096, 4096))), []string{"REQ_PAGES", `"ram1"`}},
		{"REQ_PAGES of half a page", toPackage(sends(req(nil, "ram0", 2048, 4096))), []string{"REQ_PAGES", "whole pages"}},
		{"REQ_PAGES past 64 bits", toPackage(sends(req(nil, "ram0", 1<<64-4096, 8192))), []string{"REQ_PAGES", "64 bits"}},
		{"PONGs that nobody asked for", toPackage(sends(pong(nil, 4), pong(nil, 5))), []string{"PONG"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := send(t, &ledger{}, newRawDest(t, c.play), Options{Verify: true})
			says(t, s.run(), c.want...)
			s.stayed()
		})
	}
}

func TestWhatADestinationSaysComesAsItsOwnError(t *testing.T) {
	t.Run("refused", func(t *testing.T) {
		s := send(t, &ledger{}, newRawDest(t, toPing(sends(wire.AppendFailed(nil, wire.Failed{Code: wire.FailureRefused, Text: "too little memory"})))), Options{})
		var refused *RefusedError
		if err := s.run(); !errors.As(err, &refused) || refused.Reason != "too little memory" {
			t.Errorf("error %v, want a *RefusedError", err)
		}
		s.stayed()
	})
	t.Run("failed", func(t *testing.T) {
		s := send(t, &ledger{}, newRawDest(t, toPackage(sends(wire.AppendFailed(nil, wire.Failed{Code: wire.FailureOther, Text: "serial0 is broken"})))), Options{})
		var failed *FailedError
		if err := s.run(); !errors.As(err, &failed) || failed.Text != "serial0 is broken" {
			t.Errorf("error %v, want a *FailedError", err)
		}
		s.stayed()
	})
}

func TestADestinationThatAnswersTheHelloBadly(t *testing.T) {
	for name, c := range map[string]struct {
		answer  []byte
		refused bool
		want    []string
	}{
		"refuses":         {wire.Welcome{Refusal: "come back later"}.Append(nil), true, []string{"main channel", "come back later"}},
		"another version": {wire.Welcome{Version: 9}.Append(nil), true, []string{"version 9", "1 to 1"}},
		"a web server":    {[]byte("HTTP/1.1 400 Bad Request\r\n\r\n"), false, []string{"no microvm", "HTTP/1.1"}},
		"hangs up":        {nil, false, []string{"answer to hello", "EOF"}},
		"half an answer":  {wire.Welcome{Version: 1}.Append(nil)[:9], false, []string{"answer to hello", "EOF"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := send(t, &ledger{}, rawListener(t, func(ln net.Listener) {
				conn := accept(t, ln)
				wire.ReadHello(conn)
				conn.Write(c.answer)
				conn.Close()
			}), Options{})
			err := s.run()
			says(t, err, c.want...)
			var refused *RefusedError
			if errors.As(err, &refused) != c.refused {
				t.Errorf("a *RefusedError: %v, want %v", !c.refused, c.refused)
			}
			s.stayed()
		})
	}
}

// After RUN the guest is the destination's, whatever it says.
func TestAHostileDestinationAfterRunKeepsTheGuest(t *testing.T) {
	for _, c := range []hostileDest{
		{"hangs up at RUN", toRun(hangsUp), []string{"RUNNING", "EOF"}},
		{"SHUT 0 instead of RUNNING", toRun(sends(shut0)), []string{"RUNNING", "closed"}},
		{"garbage instead of RUNNING", toRun(sends([]byte("HTTP/1.1 200"))), []string{"RUNNING", "message"}},
		{"FAILED after RUNNING", toComplete(sends(wire.AppendFailed(nil, wire.Failed{Code: wire.FailureOther, Text: "triple fault"}))), []string{"triple fault"}},
		{"LOADED twice more", toComplete(sends(wire.AppendLoaded(nil, 1), wire.AppendLoaded(nil, 1))), []string{"LOADED"}},
		{"RUNNING twice more", toComplete(sends(ran, ran)), []string{"RUNNING"}},
		{"REQ_PAGES of an unknown block", toComplete(sends(req(nil, "vga", 0, 4096))), []string{"REQ_PAGES", `"vga"`}},
		{"hangs up instead of SHUT", toComplete(hangsUp), []string{"EOF"}},
		{"SHUT 7", toComplete(sends(wire.AppendShut(nil, 7))), []string{"status 7"}},
		{"half of SHUT", toComplete(func(d *rawDest) { d.send(shut0[:7]); d.hangUp() }), []string{"EOF"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := send(t, &ledger{}, newRawDest(t, c.play), Options{Verify: true})
			says(t, s.run(), append(c.want, "paused")...)
			s.gone()
		})
	}
}
