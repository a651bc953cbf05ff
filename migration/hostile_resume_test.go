package migration

import (
	"bufio"
	"net"
	"testing"
	"time"

	"microvm/migration/wire"
)

// A destination that comes back with a false account of what it has gets no
// page by it, and the source keeps them all.
func TestAHostileDestinationCannotLieItsWayThroughRecovery(t *testing.T) {
	full := make([]byte, 256/8)
	bitmap := wire.AppendRecvBitmap
	honest := func() []byte { return bitmap(bitmap(nil, "ram0", 0, full), "ram1", 0, []byte{0}) }
	ack := func(b []byte) []byte { return wire.AppendResumeAck(b, wire.ResumeRunning) }
	for _, c := range []struct {
		name   string
		answer []byte
	}{
		{"no bitmap", ack(nil)},
		{"a bitmap short", ack(bitmap(nil, "ram0", 0, full))},
		{"half a bitmap", ack(bitmap(bitmap(nil, "ram0", 0, full[:16]), "ram1", 0, []byte{0}))},
		{"an unknown block", ack(bitmap(honest(), "vga", 0, []byte{0}))},
		{"a gap", ack(bitmap(bitmap(bitmap(nil, "ram0", 0, full[:8]), "ram0", 128, full[:16]), "ram1", 0, []byte{0}))},
		{"pages past the end", ack(bitmap(bitmap(nil, "ram0", 0, append(full, 0)), "ram1", 0, []byte{0}))},
		{"first page past the end", ack(bitmap(honest(), "ram0", 1<<40, []byte{1}))},
		{"a block twice", ack(bitmap(honest(), "ram1", 0, []byte{1}))},
		{"a state that nobody knows", wire.AppendResumeAck(honest(), 9)},
		{"never got RUN, after RUNNING", wire.AppendResumeAck(honest(), wire.ResumeLoaded)},
		{"LOADED instead", wire.AppendLoaded(nil, 1)},
		{"hangs up", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := &ledger{}
			s := send(t, l, lyingDest(t, c.answer), Options{Recover: 200 * time.Millisecond})
			s.run()
			s.gone()
			if n := s.report.Recoveries; n != 0 {
				t.Errorf("believed %d times", n)
			}
		})
	}
}

// lyingDest hangs up on a source once the guest would run here, and gives it
// the same answer whenever it comes back, then hangs up again.
func lyingDest(t *testing.T, answer []byte) Address {
	return rawListener(t, func(ln net.Listener) {
		for first := true; ; first = false {
			d := &rawDest{}
			for d.urgent == nil {
				c := accept(t, ln)
				h, err := wire.ReadHello(c)
				if err != nil {
					return
				}
				c.Write(wire.Welcome{Version: wire.Version}.Append(nil))
				if h.Role == wire.RoleMain {
					d.main, d.in = c, bufio.NewReader(c)
				} else {
					d.urgent = c
				}
			}
			if first {
				d.running()
			} else {
				d.send(answer)
			}
			d.main.Close()
			d.urgent.Close()
		}
	})
}
