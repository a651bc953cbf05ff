package migration

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"microvm/memslot"
	"microvm/memslot/hugepool"
	"microvm/migration/snapshot"
	"microvm/migration/wire"
)

// saveTo writes a machine to a new directory, and gives the memory of its first block
// as it was when it stood still.
func saveTo(t *testing.T, m StoppableMachine, leave bool) (dir string, rep *SaveReport, was []byte) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "snapshot")
	files, err := snapshot.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	var blocks []snapshot.Block
	for _, b := range m.Blocks() {
		blocks = append(blocks, snapshot.Block{Name: b.Name(), Size: b.Size()})
	}
	w, err := snapshot.NewWriter(files, blocks)
	if err != nil {
		t.Fatal(err)
	}
	rep, err = Save(t.Context(), m, w, SaveOptions{LeaveRunning: leave, Log: testLog(t), Head: func() (snapshot.Head, error) {
		mem, err := m.Blocks()[0].View(0, m.Blocks()[0].Size())
		was = bytes.Clone(mem)
		return snapshot.Head{VM: "test", Machine: []byte("{}")}, err
	}})
	if err != nil {
		t.Fatal(err)
	}
	return dir, rep, was
}

// restoreTo loads a machine from a directory.
func restoreTo(t *testing.T, m DestinationMachine, dir string, lazy bool) (*Restoration, error) {
	t.Helper()
	files, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.Close)
	file, err := snapshot.NewReader(files)
	if err != nil {
		t.Fatal(err)
	}
	return NewRestoration(m, file, RestoreOptions{Lazy: lazy, Log: testLog(t)})
}

// However large the pages were and are, a guest that reads all of them finds what was
// saved, and nothing is left out: blocks, devices, devices in parts.
func TestAMachineGoesThroughFiles(t *testing.T) {
	const size, second = 8 * hugePage, hugePage
	for _, way := range append(ways[:len(ways):len(ways)], struct {
		name     string
		from, to memslot.Backing
	}{"4 KiB to 4 KiB", memslot.Anonymous, memslot.Anonymous}) {
		for _, lazy := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, lazy %t", way.name, lazy), func(t *testing.T) {
				if way.from == memslot.Hugetlb || way.to == memslot.Hugetlb {
					hugepool.Need(t, 18)
				}
				m := newMachineOf(t, way.from, size, second)
				m.fill(t)
				m.parts = []*partDevice{{id: "gpu0", saves: 3}}
				zeros, err := m.blocks[1].View(0, second)
				if err != nil {
					t.Fatal(err)
				}
				clear(zeros)
				dir, rep, _ := saveTo(t, m, false)
				if m.paused.Load() != 1 || m.resumed.Load() != 0 || rep.Passes != 0 || rep.MemoryBytes != size+second {
					t.Errorf("paused %d times, resumed %d times: %+v", m.paused.Load(), m.resumed.Load(), rep)
				}
				there := newMachineOf(t, way.to, size, second)
				there.device.text, there.guests = "", 3
				there.parts = []*partDevice{{id: "gpu0"}}
				r, err := restoreTo(t, there, dir, lazy)
				if err != nil {
					t.Fatal(err)
				}
				if there.device.text != m.device.text || len(there.parts[0].loads) != 3 {
					t.Errorf("devices: %q, %d parts", there.device.text, len(there.parts[0].loads))
				}
				if err := r.Run(); err != nil {
					t.Fatal(err)
				}
				rrep, err := r.Wait()
				if err != nil {
					t.Fatal(err)
				}
				there.mem.Wait()
				if there.wrong.Load() != 0 || there.seen.Load() != 3*size/wire.PageSize {
					t.Errorf("the guest found %d pages right and %d wrong", there.seen.Load(), there.wrong.Load())
				}
				equalMemory(t, m, there)
				if f := rrep.Faults; (f.Count > 0) != lazy || lazy && (f.Requested == 0 || f.P50NS <= 0 || len(rrep.VCPUBlocktimeNS) != 3) {
					t.Errorf("%+v", rrep)
				}
				if r.PagesLeft() != 0 {
					t.Errorf("%d pages left", r.PagesLeft())
				}
			})
		}
	}
}

// What a guest writes while it is saved is saved as it was when it stood still.
func TestAMachineThatRunsOnIsSavedAsItWasAtOnce(t *testing.T) {
	const size = 32 << 20
	src := newBusyMachine(t, size, size/2, 100*time.Microsecond)
	dir, rep, was := saveTo(t, src, true)
	if src.paused.Load() != 1 || src.resumed.Load() != 1 || rep.Passes == 0 || !rep.LeftRunning || rep.BytesWritten <= size/2 {
		t.Errorf("paused %d times, resumed %d times: %+v", src.paused.Load(), src.resumed.Load(), rep)
	}
	there := newTestMachine(t, size)
	r, err := restoreTo(t, there, dir, true)
	if err == nil {
		err = r.Run()
	}
	if err == nil {
		_, err = r.Wait()
	}
	if err != nil {
		t.Fatal(err)
	}
	mem, err := there.blocks[0].View(0, size)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mem, was) {
		t.Error("memory is not what it was")
	}
}

// A device may need, to be loaded, a page that cannot be read: then it is not, and no
// guest runs.
func TestADeviceThatNeedsADamagedPageIsNotLoaded(t *testing.T) {
	m := newTestMachine(t, 4<<20)
	m.fill(t)
	dir, _, _ := saveTo(t, m, false)
	memory, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	if _, err := memory.WriteAt([]byte{0, 0, 0}, 701*wire.PageSize+100); err != nil {
		t.Fatal(err)
	}
	there := newTestMachine(t, 4<<20)
	mem := memslot.NewMemory(nullRegions{}, 1)
	if err := mem.Map(0, 0, there.blocks[0], 0, 4<<20, 0); err != nil {
		t.Fatal(err)
	}
	there.device.touch = func() error { return mem.ReadAt(make([]byte, 8), 701*wire.PageSize) }
	if _, err := restoreTo(t, there, dir, true); err == nil || !strings.Contains(err.Error(), "page 701") {
		t.Errorf("lazily: %v", err)
	}
	other := newTestMachine(t, 4<<20)
	if _, err := restoreTo(t, other, dir, false); err == nil || !strings.Contains(err.Error(), "page 701") {
		t.Errorf("at once: %v", err)
	}
	if there.running.Load() || other.running.Load() {
		t.Error("a guest runs")
	}
}

func TestASnapshotOfAnotherMachineIsRefused(t *testing.T) {
	m := newTestMachine(t, 1<<20)
	dir, _, _ := saveTo(t, m, false)
	newer := newTestMachine(t, 1<<20)
	newer.device.loadErr = errTest
	for name, there := range map[string]*testMachine{
		"blocks": newTestMachine(t, 1<<20, 1<<20),
		"bytes":  newTestMachine(t, 2<<20),
		"broken": newer,
	} {
		for _, lazy := range []bool{false, true} {
			if _, err := restoreTo(t, there, dir, lazy); err == nil || name == "broken" && !errors.Is(err, errTest) || name != "broken" && !strings.Contains(err.Error(), "the snapshot has") {
				t.Errorf("%s, lazy %t: %v", name, lazy, err)
			}
		}
	}
}

// Until a lazy machine runs, no thread of this process waits for a page in the kernel:
// what stops all of them, as confining the process does, would stop the reader that is
// to bring it, and wait for ever.
func TestNothingOfOursWaitsForAPageBeforeAMachineRuns(t *testing.T) {
	needPopulate(t)
	m := newTestMachine(t, 1<<20)
	m.fill(t)
	dir, _, _ := saveTo(t, m, false)
	there := newTestMachine(t, 1<<20)
	r, err := restoreTo(t, there, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	// By when another's, which begins later than it could have, has gone around,
	// the probe would have touched its page.
	other, _ := armed(t, 1<<20)
	other.listen(func(err error) { t.Error(err) })
	other.run(nil)
	measured(t, other.probe, 3)
	complete(t, other)
	if r.lazy.pager.probe.touched.Load() != 0 {
		t.Error("a page is touched before the machine runs")
	}
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Wait(); err != nil {
		t.Fatal(err)
	}
}
