package migration

import (
	"context"
	"errors"
	"strings"
	"testing"

	"microvm/migration/wire"
)

// troubled is a machine in which one thing goes wrong.
type troubled struct {
	sourceSide
	devices  []Snapshotter
	config   func() ([]byte, error)
	handOver error
}

func (m troubled) Devices() []Snapshotter {
	if m.devices != nil {
		return m.devices
	}
	return m.sourceSide.Devices()
}

func (m troubled) Config() ([]byte, error) {
	if m.config != nil {
		return m.config()
	}
	return m.sourceSide.Config()
}

func (m troubled) HandOver() error {
	if m.handOver != nil {
		return m.handOver
	}
	return m.sourceSide.HandOver()
}

// unsaveable is a device that has trouble with its state.
type unsaveable struct {
	*testDevice
	save func() ([]byte, error)
}

func (d unsaveable) Save() ([]byte, error) { return d.save() }

func TestASourceWithTroubleOfItsOwnKeepsTheGuest(t *testing.T) {
	for _, c := range []struct {
		name   string
		wrong  func(m *troubled)
		paused int
		want   []string
	}{
		{"no description", func(m *troubled) { m.config = func() ([]byte, error) { return nil, errTest } }, 0, []string{"describe the VM", errTest.Error()}},
		{"description too long", func(m *troubled) {
			m.config = func() ([]byte, error) { return []byte(`"` + strings.Repeat("x", 1<<20) + `"`), nil }
		}, 0, []string{"CONFIG", "1048576"}},
		{"a device cannot be saved", func(m *troubled) {
			m.devices = []Snapshotter{unsaveable{m.device, func() ([]byte, error) { return nil, errTest }}}
		}, 1, []string{`device "test0"`, "save", errTest.Error()}},
		{"a device has too much state", func(m *troubled) {
			m.devices = []Snapshotter{unsaveable{m.device, func() ([]byte, error) { return make([]byte, 64<<20), nil }}}
		}, 1, []string{"67108864"}},
		{"the guest ends before it is handed over", func(m *troubled) { m.handOver = errTest }, 1, []string{errTest.Error()}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{}
			r := receive(t, l, nil)
			s := sendAs(t, l, r.addr, Options{Verify: true}, sentSizes, func(m sourceSide) SourceMachine {
				bad := &troubled{sourceSide: m}
				c.wrong(bad)
				return bad
			})
			says(t, s.run(), c.want...)
			s.stayed()
			if l.paused != c.paused {
				t.Errorf("paused %d times, want %d", l.paused, c.paused)
			}
			if err := r.wait(); err == nil {
				t.Error("the destination ended without an error")
			}
		})
	}
}

func TestNobodyThere(t *testing.T) {
	ln, err := Listen(t.Context(), Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	s := send(t, &ledger{}, ListenAddress(ln), Options{})
	says(t, s.run(), "main channel", ListenAddress(ln).String(), "refused", "microvm receive")
	s.stayed()
}

// What is on its way may be damaged; --verify says where.
func TestVerifyFindsAPageThatWasDamagedOnItsWay(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	damaged := uint64(0)
	_, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
		if at.name == "RAM" && damaged == 0 {
			h, err := wire.DecodeHeader([wire.HeaderSize]byte(message))
			if err != nil {
				t.Error(err)
			}
			m, err := wire.DecodeRAM([wire.RAMFixedSize]byte(message[wire.HeaderSize:]), h)
			if err == nil && m.Kind == wire.KindData && m.Block == 0 {
				message[wire.RAMHeaderSize+100] ^= 4
				damaged = m.First
			}
		}
		return len(message), false
	})
	s := send(t, l, addr, Options{Verify: true})
	if err := s.run(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Receive: %v", err)
	}
	if s.report.Verified == nil || *s.report.Verified {
		t.Errorf("verified: %v", s.report.Verified)
	}
	says(t, errors.New(s.report.Error), "verification failed", `"ram0"`, "page 1:")
	if damaged != 1 {
		t.Errorf("the page damaged was %d", damaged)
	}
}

// Blocks that are not as CONFIG lists them: what a builder got wrong is found
// before a page moves.
func TestABuilderThatBuildsSomethingElseIsFoundOut(t *testing.T) {
	for name, c := range map[string]struct {
		sizes []uint64
		want  []string
	}{
		"a block short":  {[]uint64{1 << 20}, []string{"2 RAM blocks", "destination 1"}},
		"a block larger": {[]uint64{1 << 20, 8192}, []string{`"ram1"`, "4096", "8192"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{}, func(context.Context, []byte) (DestinationMachine, error) {
				return destSide{newTestMachine(t, c.sizes...), l}, nil
			})
			s := send(t, l, r.addr, Options{})
			s.run()
			s.stayed()
			says(t, r.wait(), append(c.want, "migration refused")...)
			if l.stopped == 0 {
				t.Error("the machine that was built was never stopped")
			}
		})
	}
}
