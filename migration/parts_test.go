package migration

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"microvm/memslot"
	"microvm/migration/wire"
)

// partDevice has a state of many parts: numbers, each in a part of its own of
// another length.
type partDevice struct {
	id     string
	saves  int // parts
	loads  []uint32
	config string
	order  *[]string // of the loads that come last, by id
	// onSave and onLoad, if not nil, are called with each part's number.
	onSave, onLoad func(ctx context.Context, part int) error
}

func (d *partDevice) ID() string      { return d.id }
func (d *partDevice) Version() uint32 { return 3 }

func (d *partDevice) SaveParts(ctx context.Context, send func([]byte) error) error {
	part := make([]byte, 1<<20)
	for i := range d.saves {
		if d.onSave != nil {
			if err := d.onSave(ctx, i); err != nil {
				return err
			}
		}
		binary.BigEndian.PutUint32(part, uint32(i))
		if err := send(part[:4+(i*7919)%(64<<10)]); err != nil {
			return err
		}
		clear(part[:4]) // it is not kept
	}
	return nil
}

func (d *partDevice) Save() ([]byte, error) { return []byte("config of " + d.id), nil }

func (d *partDevice) LoadPart(ctx context.Context, version uint32, part []byte) error {
	number := int(binary.BigEndian.Uint32(part))
	if version != 3 || len(part) != 4+(number*7919)%(64<<10) {
		return fmt.Errorf("version %d, part %d with %d bytes", version, number, len(part))
	}
	if d.onLoad != nil {
		if err := d.onLoad(ctx, number); err != nil {
			return err
		}
	}
	d.loads = append(d.loads, uint32(number))
	return nil
}

func (d *partDevice) Load(version uint32, state []byte) error {
	d.config = string(state)
	if d.order != nil {
		*d.order = append(*d.order, d.id)
	}
	return nil
}

// loaded fails the test unless the device has the state of n parts.
func (d *partDevice) loaded(t *testing.T, n int) {
	t.Helper()
	if len(d.loads) != n || !slices.IsSorted(d.loads) {
		t.Errorf("device %q: %d parts out of %d, in order: %v", d.id, len(d.loads), n, slices.IsSorted(d.loads))
	}
	if d.config != "config of "+d.id {
		t.Errorf("device %q: %q", d.id, d.config)
	}
}

// The devices are loaded with all of memory at the source yet, and look into it.
func TestDeviceStateInPartsTouchesMemoryThatIsAtTheSource(t *testing.T) {
	for _, connections := range []int{1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) {
			src := newTestMachine(t, 8<<20)
			src.fill(t)
			src.parts = []*partDevice{{id: "gpu0", saves: 60}, {id: "gpu1", saves: 60}}
			var order []string
			build, built := builderOf(t, func(dst *testMachine) {
				mem := memslot.NewMemory(nullRegions{}, 4)
				if err := mem.Map(0, 0, dst.blocks[0], 0, 8<<20, 0); err != nil {
					t.Error(err)
				}
				for i, id := range []string{"gpu0", "gpu1"} {
					dst.parts = append(dst.parts, &partDevice{id: id, order: &order, onLoad: func(_ context.Context, part int) error {
						page := uint64(2*part + i)
						var got [1]byte
						if err := mem.ReadAt(got[:], page*wire.PageSize); err != nil {
							return err
						}
						if want := pattern(page, 0); page%5 != 0 && got[0] != want {
							return fmt.Errorf("page %d has %#x, not %#x", page, got[0], want)
						}
						return nil
					}})
				}
			})
			addr, _, done := destination(t, t.Context(), build)
			s, err := NewSource(src, addr, Options{Connections: connections, Verify: true, Log: testLog(t)})
			if err != nil {
				t.Fatal(err)
			}
			mv := &move{source: src}
			mv.report, mv.err = s.Run(t.Context())
			mv.destErr, mv.dest = <-done, built()
			mv.completed(t)
			for _, d := range mv.dest.parts {
				d.loaded(t, 60)
			}
			if !slices.Equal(order, []string{"gpu0", "gpu1"}) {
				t.Errorf("what comes last was loaded in the order %v", order)
			}
			if mv.report.DeviceBlocktimeNS == 0 {
				t.Error("no device waited for a page: nothing was tested")
			}
			if connections > 1 && mv.report.ChannelBytes[0] > 1<<20 {
				t.Errorf("the states went by main: %v", mv.report.ChannelBytes)
			}
		})
	}
}

// meet makes functions that return once all of them have been called.
func meet(n int) func(ctx context.Context, part int) error {
	m := newMeeting(n)
	return func(ctx context.Context, part int) error {
		if part > 0 {
			return nil
		}
		all, err := m.come(1)
		if err != nil {
			return err
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Each device waits in its first part for the other to have come there.
func TestDevicesInPartsAreSavedAndLoadedAtOnce(t *testing.T) {
	src := newTestMachine(t, 1<<20)
	saving, loading := meet(2), meet(2)
	src.parts = []*partDevice{{id: "gpu0", saves: 5, onSave: saving}, {id: "gpu1", saves: 5, onSave: saving}}
	build, built := builderOf(t, func(dst *testMachine) {
		dst.parts = []*partDevice{{id: "gpu0", onLoad: loading}, {id: "gpu1", onLoad: loading}}
	})
	addr, _, done := destination(t, t.Context(), build)
	s, err := NewSource(src, addr, Options{Connections: 2, Timeout: patience, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Run(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	for _, d := range built().parts {
		d.loaded(t, 5)
	}
}

// A device that fails, on either side, ends all others, and is named; the guest
// runs on at the source.
func TestADeviceThatFailsInItsPartsEndsAllOthers(t *testing.T) {
	fails := func(_ context.Context, part int) error {
		if part == 3 {
			return errTest
		}
		return nil
	}
	waits := func(ctx context.Context, part int) error {
		<-ctx.Done() // for ever, if nobody ended it
		return context.Cause(ctx)
	}
	for _, side := range []string{"save", "load"} {
		t.Run(side, func(t *testing.T) {
			l := &ledger{}
			r := receive(t, l, func(m *testMachine) {
				m.parts = []*partDevice{{id: "gpu0"}, {id: "gpu1"}}
				if side == "load" {
					m.parts[0].onLoad, m.parts[1].onLoad = waits, fails
				}
			})
			s := sendAs(t, l, r.addr, Options{Connections: 4}, sentSizes, func(m sourceSide) SourceMachine {
				m.parts = []*partDevice{{id: "gpu0", saves: 20}, {id: "gpu1", saves: 20}}
				if side == "save" {
					m.parts[0].onSave, m.parts[1].onSave = waits, fails
				}
				return m
			})
			err := s.run()
			says(t, err, `device "gpu1"`, side, errTest.Error())
			if side == "load" {
				says(t, err, "load part 3 of format 3")
			}
			s.stayed()
			if err := r.wait(); err == nil {
				t.Error("the destination has received it")
			} else if side == "load" && !errors.Is(err, errTest) {
				t.Errorf("the destination says %v", err)
			}
		})
	}
}

func TestDevicesOfAnotherKindAreRefusedBeforeAnythingMoves(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	s := newRawMultiSource(t, r.addr, 2)
	s.send(config(func(c *wire.Config) { c.Devices[0].Parts = true }))
	err := r.wait()
	var refused *RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("error %v, want a *RefusedError", err)
	}
	says(t, err, `device "test0"`, "source true, destination false")
}

// partsSource reaches the point at which packets of a device may come.
func partsSource(t *testing.T, l *ledger) (*rawSource, *receiver, func() *partDevice) {
	t.Helper()
	var built *testMachine
	r := receive(t, l, func(m *testMachine) {
		m.parts = []*partDevice{{id: "gpu0"}}
		built = m
	})
	s := newRawMultiSource(t, r.addr, 2)
	s.send(wire.Message(wire.TypeOpenReturnPath, nil),
		config(func(c *wire.Config) { c.Devices = append(c.Devices, wire.Device{ID: "gpu0", Version: 3, Parts: true}) }),
		advise(), wire.Ping(0))
	s.next(wire.ReturnPong)
	return s, r, func() *partDevice { return built.parts[0] }
}

var gpuElsewhere = wire.DeviceState{ID: "gpu0", Version: 3, Flags: wire.StateByMulti}.Append(nil)

// partOf is a packet of the device.
func partOf(index, flags uint32) []byte {
	d := wire.DeviceState{ID: "gpu0", Version: 3, Index: index, Flags: flags, Data: []byte("config of gpu0")}
	if flags == 0 {
		d.Data = binary.BigEndian.AppendUint32(nil, index)
		d.Data = append(d.Data, make([]byte, int(index)*7919%(64<<10))...)
	}
	return d.Append(nil)
}

func TestPacketsOfADeviceArePutInOrder(t *testing.T) {
	s, _, device := partsSource(t, &ledger{})
	s.send(packageOf(listenMessage, stateMessage, gpuElsewhere), wire.Sync(1))
	for _, c := range s.multi {
		c.Write(wire.Sync(1))
	}
	s.multi[0].Write(slices.Concat(partOf(5, wire.StateConfig), partOf(4, 0), partOf(0, 0)))
	s.multi[1].Write(slices.Concat(partOf(3, 0), partOf(1, 0), partOf(2, 0)))
	s.next(wire.ReturnLoaded)
	device().loaded(t, 5)
}

func TestAHostileSourceOfDeviceStatesGetsAnErrorAndNoGuest(t *testing.T) {
	begin := func(s *rawSource) {
		s.send(packageOf(listenMessage, stateMessage, gpuElsewhere), wire.Sync(1))
		for _, c := range s.multi {
			c.Write(wire.Sync(1))
		}
	}
	packets := func(p ...[]byte) func(*rawSource) {
		return func(s *rawSource) {
			begin(s)
			s.multi[1].Write(slices.Concat(p...))
		}
	}
	other := wire.DeviceState{ID: "gpu0", Version: 2}
	for _, c := range []hostileSource{
		{"before the package", func(s *rawSource) { s.multi[0].Write(partOf(0, 0)) }, []string{"multi channel 0", "DEVICE_STATE", "before the package"}},
		{"of a device that goes by main", packets(stateMessage), []string{"multi channel 1", `device "test0"`, "not said to come"}},
		{"of a device that is not there", packets(wire.DeviceState{ID: "vga"}.Append(nil)), []string{`device "vga"`}},
		{"of another format", packets(other.Append(nil)), []string{`device "gpu0"`, "format 2", "announced with format 3"}},
		{"twice", packets(partOf(4, 0), partOf(4, 0)), []string{`device "gpu0"`, "packet 4", "second time"}},
		{"twice, and loaded", packets(partOf(0, 0), partOf(1, wire.StateConfig), partOf(0, 0)), []string{`device "gpu0"`, "packet 0", "second time"}},
		{"CONFIG twice", packets(partOf(1, wire.StateConfig), partOf(2, wire.StateConfig)), []string{`device "gpu0"`, "packet 2 after CONFIG"}},
		{"part after CONFIG", packets(partOf(1, wire.StateConfig), partOf(2, 0)), []string{`device "gpu0"`, "packet 2 after CONFIG, which is packet 1"}},
		{"CONFIG before a part that was there", packets(partOf(2, 0), partOf(1, wire.StateConfig)), []string{`device "gpu0"`, "packet 2 after CONFIG, which is packet 1"}},
		{"the word that it comes, as it comes", packets(gpuElsewhere), []string{`device "gpu0"`, "flags 2"}},
		{"hangs up in between", func(s *rawSource) { packets(partOf(0, 0))(s); s.main.Close(); s.multi[0].Close() }, []string{"EOF"}},
		{"the word twice", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage, gpuElsewhere, gpuElsewhere)) }, []string{`device "gpu0"`, "second time"}},
		{"the word for one that has no parts", func(s *rawSource) {
			s.send(packageOf(listenMessage, wire.DeviceState{ID: "test0", Flags: wire.StateByMulti}.Append(nil), gpuElsewhere))
		}, []string{`device "test0"`, "none whose state comes in parts"}},
		{"in the package, out of order", func(s *rawSource) {
			s.send(packageOf(listenMessage, stateMessage, partOf(1, 0), partOf(0, 0), partOf(2, wire.StateConfig)))
		}, []string{`device "gpu0"`, "packet 1", "in place of packet 0"}},
		{"in the package, without the last", func(s *rawSource) { s.send(packageOf(listenMessage, stateMessage, partOf(0, 0))) }, []string{`device "gpu0"`, "without CONFIG"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{}
			s, r, _ := partsSource(t, l)
			c.doing(s)
			says(t, r.wait(), c.want...)
			if l.ran != 0 {
				t.Error("it ran the guest")
			}
		})
	}
	t.Run("without multi channels", func(t *testing.T) {
		r := receive(t, &ledger{}, nil)
		s := newRawSource(t, r.addr)
		s.advised()
		s.send(packageOf(listenMessage, wire.DeviceState{ID: "test0", Flags: wire.StateByMulti}.Append(nil)))
		says(t, r.wait(), `device "test0"`, "of which there are none")
	})
	t.Run("more than is allowed", func(t *testing.T) {
		p, err := newPartsIn(&testMachine{device: &testDevice{}, parts: []*partDevice{{id: "gpu0"}}}, []wire.DeviceState{{ID: "gpu0", Flags: wire.StateByMulti}}, 2)
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 15<<20)
		for i := range uint32(1000) {
			if err = p.put(wire.DeviceState{ID: "gpu0", Index: 1 + i, Data: data}); err != nil {
				break
			}
		}
		if err == nil {
			t.Fatal("it takes in states without end")
		}
		says(t, err, `device "gpu0"`, fmt.Sprint(wire.MaxPartsBytes))
	})
}
