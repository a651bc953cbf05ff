package migration

import (
	"context"
	"errors"
	"testing"
	"time"

	"microvm/migration/wire"
)

// A case of a source that breaks the rules: what it does, and what the
// destination's error has to say.
type hostileSource struct {
	name  string
	doing func(s *rawSource)
	want  []string
}

var hostileAtFirst = []hostileSource{
	{"a message that nobody knows", func(s *rawSource) { s.send(wire.AppendHeader(nil, wire.Header{Type: 99})) }, []string{"message type 99"}},
	{"a header that was damaged", func(s *rawSource) { s.send([]byte{0, 2, 1, 0, 0, 0, 0, 4, 0, 0, 0, 0}) }, []string{"PING", "damaged"}},
	{"PACKAGED of 64 MiB and a byte", func(s *rawSource) {
		s.send(wire.AppendHeader(nil, wire.Header{Type: wire.TypePackaged, Length: 64<<20 + 1}))
	}, []string{"PACKAGED", "67108865", "67108864"}},
	{"CONFIG of 4 GiB", func(s *rawSource) {
		s.send(wire.AppendHeader(nil, wire.Header{Type: wire.TypeConfig, Length: 1<<32 - 1}))
	}, []string{"CONFIG", "4294967295"}},
	{"CONFIG cut off", func(s *rawSource) { s.send(config(nil)[:40]); s.main.Close() }, []string{"CONFIG", "EOF"}},
	{"CONFIG of garbage", func(s *rawSource) { s.send(wire.Message(wire.TypeConfig, []byte("\x00\xFF"))) }, []string{"CONFIG"}},
	{"CONFIG twice", func(s *rawSource) { s.send(config(nil), config(nil)) }, []string{"CONFIG", "second time"}},
	{"CONFIG with a block that is not built", func(s *rawSource) {
		s.send(config(func(c *wire.Config) { c.Blocks = append(c.Blocks, wire.Block{Name: "x", Size: 4096, PageSize: 4096}) }))
	}, []string{"3 RAM blocks", "2"}},
	{"CONFIG with a larger block than is built", func(s *rawSource) { s.send(config(func(c *wire.Config) { c.Blocks[1].Size = 8192 })) }, []string{`"ram1"`, "8192", "4096"}},
	{"CONFIG with a block of another name", func(s *rawSource) { s.send(config(func(c *wire.Config) { c.Blocks[1].Name = "vga" })) }, []string{`"vga"`, `"ram1"`}},
	{"CONFIG with a device that is not built", func(s *rawSource) { s.send(config(func(c *wire.Config) { c.Devices[0].ID = "gpu0" })) }, []string{`device "gpu0"`, "none"}},
	{"CONFIG without a device that is built", func(s *rawSource) { s.send(config(func(c *wire.Config) { c.Devices = nil })) }, []string{"0 device", "1"}},
	{"CONFIG with a newer device", func(s *rawSource) { s.send(config(func(c *wire.Config) { c.Devices[0].Version = 7 })) }, []string{`device "test0"`, "format 7", "up to 1", "upgrade"}},
	{"ADVISE before CONFIG", func(s *rawSource) { s.send(advise()) }, []string{"POSTCOPY_ADVISE", "phase setup"}},
	{"ADVISE with pages of no size", func(s *rawSource) { s.send(config(nil), advise(4096, 0)) }, []string{"POSTCOPY_ADVISE", `"ram1"`, "page size 0"}},
	{"ADVISE with pages of 12 KiB", func(s *rawSource) { s.send(config(nil), advise(12288, 4096)) }, []string{"POSTCOPY_ADVISE", `"ram0"`, "12288"}},
	{"ADVISE in pages of 64 KiB", func(s *rawSource) {
		s.send(config(nil), wire.Advise{TargetPageSize: 65536, PageSizes: []uint64{4096, 4096}}.Append(nil))
	}, []string{"65536", "4096"}},
	{"ADVISE with a block short", func(s *rawSource) { s.send(config(nil), advise(4096)) }, []string{"POSTCOPY_ADVISE", "1 blocks", "2"}},
	{"RAM before everything", func(s *rawSource) { s.send(zeros(0, 0, 1)) }, []string{"RAM"}},
	{"PACKAGED before CONFIG", func(s *rawSource) { s.send(packageOf(listenMessage)) }, []string{"PACKAGED", "phase setup"}},
	{"RUN before everything", func(s *rawSource) { s.send(runMessage) }, []string{"POSTCOPY_RUN", "phase setup"}},
	{"LISTEN outside PACKAGED", func(s *rawSource) { s.send(listenMessage) }, []string{"POSTCOPY_LISTEN", "main channel"}},
	{"DEVICE_STATE outside PACKAGED", func(s *rawSource) { s.send(stateMessage) }, []string{"DEVICE_STATE", "main channel"}},
	{"CANCEL", func(s *rawSource) { s.send(wire.Cancel("disk full")) }, []string{"the source keeps the VM", "disk full"}},
	{"END of nothing", func(s *rawSource) { s.send(wire.Message(wire.TypeEnd, nil)) }, []string{"END", "not all is here"}},
	{"RESUME of nothing", func(s *rawSource) { s.send(wire.Message(wire.TypeResume, nil)) }, []string{"POSTCOPY_RESUME"}},
	{"nothing, then hangs up", func(s *rawSource) { s.main.Close() }, []string{"closed", "EOF"}},
}

var hostileWhenAdvised = []hostileSource{
	{"ADVISE twice", func(s *rawSource) { s.send(advise()) }, []string{"POSTCOPY_ADVISE", "phase advise"}},
	{"RUN before PACKAGED", func(s *rawSource) { s.send(runMessage) }, []string{"POSTCOPY_RUN", "phase advise"}},
	{"CHECKSUMS that nobody asked for", func(s *rawSource) { s.send(wire.Checksums{Sums: []uint32{1}}.Append(nil)) }, []string{"CHECKSUMS", "not asked for"}},
	{"package: LISTEN twice", func(s *rawSource) { s.send(packageOf(listenMessage, listenMessage, stateMessage)) }, []string{"POSTCOPY_LISTEN", "second time"}},
	{"package: state before LISTEN", func(s *rawSource) { s.send(packageOf(stateMessage, listenMessage)) }, []string{"PACKAGED", "DEVICE_STATE", "POSTCOPY_LISTEN"}},
	{"package: something else in it", func(s *rawSource) { s.send(packageOf(listenMessage, wire.Ping(1))) }, []string{"PACKAGED", "PING"}},
	{"package in a package", func(s *rawSource) { s.send(packageOf(listenMessage, packageOf(listenMessage))) }, []string{"PACKAGED"}},
	{"package: half a header", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage[:5])) }, []string{"PACKAGED", "5 bytes"}},
	{"package: half a state", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage[:20])) }, []string{"PACKAGED", "DEVICE_STATE"}},
	{"package: cut off", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage)[:30]); s.main.Close() }, []string{"PACKAGED", "EOF"}},
	{"package: no state", func(s *rawSource) { s.send(packageOf(listenMessage)) }, []string{`device "test0"`, "none came"}},
	{"package: state twice", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage, stateMessage)) }, []string{`device "test0"`, "second time"}},
	{"package: state of a stranger", func(s *rawSource) {
		s.send(packageOf(listenMessage, stateMessage, wire.DeviceState{ID: "gpu0", Flags: wire.StateConfig}.Append(nil)))
	}, []string{`device "gpu0"`}},
}

var hostileWhenLoaded = []hostileSource{
	{"PACKAGED twice", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage)) }, []string{"PACKAGED", "phase loaded"}},
	{"hangs up", func(s *rawSource) { s.main.Close() }, []string{"closed", "loaded", "EOF"}},
	{"RAM of a block that is not there", func(s *rawSource) { s.send(zeros(7, 0, 1)) }, []string{"RAM", "block 7 of 2"}},
	{"RAM that begins past the end", func(s *rawSource) { s.send(zeros(0, 256, 1)) }, []string{"RAM", `"ram0"`, "256"}},
	{"RAM that ends past the end", func(s *rawSource) { s.send(zeros(0, 255, 2)) }, []string{"RAM", `"ram0"`, "255", "256"}},
	{"RAM of 2^32 pages", func(s *rawSource) { s.send(zeros(0, 1, 1<<32-1)) }, []string{"RAM", "4294967295"}},
	{"RAM at 2^64", func(s *rawSource) { s.send(zeros(0, 1<<64-1, 2)) }, []string{"RAM", "18446744073709551615"}},
	{"RAM without its fixed part", func(s *rawSource) {
		s.send(wire.AppendHeader(nil, wire.Header{Type: wire.TypeRAM, Length: 3}), []byte{0, 0, 0})
	}, []string{"RAM", "3 bytes"}},
	{"RAM cut off", func(s *rawSource) {
		s.send(wire.AppendRAM(nil, wire.RAM{Count: 2}), make([]byte, 5000))
		s.main.Close()
	}, []string{"RAM", "EOF"}},
	{"PING on the urgent channel", func(s *rawSource) { s.urgent.Write(wire.Ping(1)) }, []string{"PING", "urgent channel"}},
	{"RAM past the end on the urgent channel", func(s *rawSource) { s.urgent.Write(zeros(1, 1, 1)) }, []string{"urgent channel", "RAM", `"ram1"`}},
	{"garbage on the urgent channel", func(s *rawSource) { s.urgent.Write([]byte("GET / HTTP/1.1")) }, []string{"urgent channel", "message type"}},
	{"urgent channel hangs up", func(s *rawSource) { s.urgent.Close() }, []string{"urgent channel", "EOF"}},
}

func TestAHostileSourceGetsAnErrorAndNoGuest(t *testing.T) {
	for _, phase := range []struct {
		name  string
		reach func(*rawSource)
		cases []hostileSource
	}{
		{"at first", func(*rawSource) {}, hostileAtFirst},
		{"advised", (*rawSource).advised, hostileWhenAdvised},
		{"loaded", (*rawSource).loaded, hostileWhenLoaded},
	} {
		for _, c := range phase.cases {
			t.Run(phase.name+": "+c.name, func(t *testing.T) {
				l := &ledger{}
				r := receive(t, l, nil)
				s := newRawSource(t, r.addr)
				phase.reach(s)
				c.doing(s)
				says(t, r.wait(), c.want...)
				if l.ran != 0 {
					t.Error("it ran the guest")
				}
				if p := r.dest.Phase(); p != PhaseFailed {
					t.Errorf("phase %s", p)
				}
			})
		}
	}
}

func TestRunBeforeLoadedIsRefused(t *testing.T) {
	l := &ledger{}
	loading, release := make(chan struct{}), make(chan struct{})
	r := receive(t, l, func(m *testMachine) {
		m.device.touch = func() error { close(loading); <-release; return nil }
	})
	s := newRawSource(t, r.addr)
	s.advised()
	s.send(packageOf(listenMessage, stateMessage))
	<-loading
	s.send(runMessage)
	s.closed()
	close(release)
	says(t, r.wait(), "POSTCOPY_RUN", "phase listening")
	if l.ran != 0 {
		t.Error("it ran the guest")
	}
}

func TestADeviceThatRefusesItsStateIsNamed(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, func(m *testMachine) { m.device.loadErr = errTest })
	s := newRawSource(t, r.addr)
	s.advised()
	s.send(packageOf(listenMessage, stateMessage))
	err := r.wait()
	says(t, err, `device "test0"`, errTest.Error())
	if !errors.Is(err, errTest) {
		t.Errorf("%v does not wrap the device's error", err)
	}
}

func TestChecksumsOfPagesThatAreNotThereAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		sums wire.Checksums
		want string
	}{
		"block": {wire.Checksums{Block: 2, Sums: []uint32{1}}, "block 2 of 2"},
		"first": {wire.Checksums{Block: 1, First: 1 << 60, Sums: []uint32{1}}, "of 1"},
		"last":  {wire.Checksums{Block: 0, First: 255, Sums: []uint32{1, 2}}, "[255, +2) of 256"},
	} {
		t.Run(name, func(t *testing.T) {
			r := receive(t, &ledger{}, nil)
			s := newRawSource(t, r.addr)
			s.send(config(func(c *wire.Config) { c.Verify = true }), c.sums.Append(nil))
			says(t, r.wait(), "CHECKSUMS", c.want)
		})
	}
}

// After RUN there is nobody to hand the guest back to: it goes on with what it
// has, until somebody gives it up.
func TestAHostileSourceCannotStopAGuestThatRuns(t *testing.T) {
	for _, c := range []hostileSource{
		{"RUN twice", func(s *rawSource) { s.send(runMessage) }, []string{"POSTCOPY_RUN"}},
		{"END", func(s *rawSource) { s.send(wire.Message(wire.TypeEnd, nil)) }, []string{"END", "not all is here"}},
		{"CANCEL", func(s *rawSource) { s.send(wire.Cancel("changed its mind")) }, []string{"CANCEL"}},
		{"RAM past the end", func(s *rawSource) { s.send(zeros(0, 255, 2)) }, []string{"RAM"}},
		{"garbage", func(s *rawSource) { s.send([]byte("GET / HTTP/1.1")) }, []string{"message type"}},
		{"hangs up", func(s *rawSource) { s.main.Close() }, []string{"EOF"}},
		{"urgent channel hangs up", func(s *rawSource) { s.urgent.Close() }, []string{"urgent channel"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{Recover: time.Hour}, buildOwned(t, l, nil))
			s := newRawSource(t, r.addr)
			s.running()
			c.doing(s)
			r.reach(PhasePaused)
			l.mu.Lock()
			if l.ran != 1 || !l.dest {
				t.Errorf("ran %d times, stopped %d times", l.ran, l.stopped)
			}
			l.mu.Unlock()
			err := r.kill()
			var lost *LostError
			if !errors.As(err, &lost) || l.dest {
				t.Errorf("given up with %v; still running: %v", err, l.dest)
			}
			says(t, err, c.want...)
		})
	}
}

func TestABuilderThatCannotIsAskedOnce(t *testing.T) {
	r := receiveWith(t, &ledger{}, DestinationOptions{}, func(context.Context, []byte) (DestinationMachine, error) { return nil, errTest })
	s := newRawSource(t, r.addr)
	s.send(config(nil))
	err := r.wait()
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("error %v, want a *RefusedError", err)
	}
	says(t, err, errTest.Error())
}
