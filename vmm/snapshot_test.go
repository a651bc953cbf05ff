package vmm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/guest"
	"microvm/migration"
	"microvm/migration/snapshot"
)

// saved writes a VM to a new directory.
func saved(t *testing.T, vm *VM, leave bool) (dir string, rep *migration.SaveReport) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "snapshot")
	files, err := snapshot.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	if rep, err = vm.Save(t.Context(), files, SaveOptions{LeaveRunning: leave, Dir: dir, Program: "test"}); err != nil {
		t.Fatal(err)
	}
	return dir, rep
}

// restore builds the VM that dir has; it ends with the test. One that is lost stays.
func restore(t *testing.T, dir string, lazy bool, o Options) (*Restored, error) {
	t.Helper()
	files, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(files.Close)
	r, err := Restore(t.Context(), files, lazy, o)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() {
		select {
		case <-r.VM.Lost():
		default:
			if err := r.VM.Close(); err != nil {
				t.Error(err)
			}
		}
	})
	return r, nil
}

// builds restores a VM, and ends it again.
func builds(t *testing.T, dir string, o Options) error {
	t.Helper()
	files, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	r, err := Restore(t.Context(), files, false, o)
	if err != nil {
		return err
	}
	return r.VM.Close()
}

// A guest that writes all the time, and checks what it reads, goes on from where it was
// saved, as often as it is restored; and where it was saved, if it was left running.
func TestASavedVMGoesOnWhereItWas(t *testing.T) {
	for _, leave := range []bool{false, true} {
		t.Run(fmt.Sprintf("left running %t", leave), func(t *testing.T) {
			// Left running, memory takes several passes: the guest writes meanwhile.
			config := tinyConfig("work=write order=rand fill=1 mem=96M span=32M beat=20 stop=40 sweep=1")
			if leave {
				config.CPUs = 4
			}
			vm, out := boot(t, config)
			out.wait(t, 3, "beat ")
			dir, rep := saved(t, vm, leave)
			if rep.MemoryBytes != config.Memory || rep.BytesWritten < 90<<20 || rep.DowntimeNS <= 0 || rep.TotalNS < rep.DowntimeNS || rep.LeftRunning != leave || (rep.Passes > 0) != leave {
				t.Errorf("%+v", rep)
			}
			before, was := "", guest.GenerationID{}
			if leave {
				was = generationOf(t, vm)
			} else if err := ended(t, vm); err != nil || vm.ExitStatus().Reason != "saved in "+dir {
				t.Errorf("it ended with %v: %+v", err, vm.ExitStatus())
			} else {
				before = out.String()
			}
			for _, lazy := range []bool{false, true} {
				there := newScreen()
				r, err := restore(t, dir, lazy, Options{Console: NewConsole(there), Name: "restored"})
				if err != nil {
					t.Fatal(err)
				}
				if generationOf(t, r.VM) == was {
					t.Error("the guest does not know that it goes on twice")
				}
				if err := r.Run(); err != nil {
					t.Fatal(err)
				}
				rep, err := r.Wait()
				if err != nil || rep.MemoryBytes != config.Memory || rep.LoadNS <= 0 || rep.TotalNS < rep.LoadNS {
					t.Errorf("%+v, %v", rep, err)
				}
				// Before anything of it is in place, each CPU touches a page.
				if (rep.Faults.Count > 0) != lazy {
					t.Errorf("lazy %t: %d faults", lazy, rep.Faults.Count)
				}
				if err := ended(t, r.VM); err != nil {
					t.Error(err)
				}
				goesOn(t, before, there.String())
			}
			if leave {
				if err := ended(t, vm); err != nil {
					t.Error(err)
				}
				goesOn(t, "", out.String())
			}
		})
	}
}

// goesOn says whether a guest that printed before came to its end after that, with all
// of its memory as it should be. What was being printed may be in both.
func goesOn(t *testing.T, before, after string) {
	t.Helper()
	if !strings.Contains(after, "sweep pages") || strings.Contains(after, "BAD") || !strings.Contains(after, " bad 0\r\nend") {
		t.Errorf("after:\n%s", after)
	}
	var first int
	for line := range strings.Lines(after) {
		if _, err := fmt.Sscanf(line, "beat %d ", &first); err == nil {
			break
		}
	}
	if last := lastBeat(before); before != "" && (first <= last-2 || first > last+20) {
		t.Errorf("it went on with heartbeat %d after %d", first, last)
	}
}

func TestAPausedVMIsPausedWhenItIsRestored(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=20"))
	out.wait(t, 1, "beat ")
	if err := vm.PauseByUser(t.Context()); err != nil {
		t.Fatal(err)
	}
	dir, _ := saved(t, vm, true)
	if s := vm.State(); s != StatePaused {
		t.Errorf("the snapshot left it %v", s)
	}
	for _, lazy := range []bool{false, true} {
		there := newScreen()
		r, err := restore(t, dir, lazy, Options{Console: NewConsole(there)})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Run(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Wait(); err != nil {
			t.Fatal(err)
		}
		if s := r.VM.State(); s != StatePaused {
			t.Errorf("lazy %t: restored it is %v", lazy, s)
		}
		if err := r.VM.ResumeByUser(); err != nil {
			t.Fatal(err)
		}
		there.wait(t, 2, "beat ")
	}
}

// A page that is not what it was is never seen by a guest.
func TestADamagedSnapshotRunsNoGuest(t *testing.T) {
	vm, out := boot(t, tinyConfig("fill=1 work=touch order=rand check=1 beat=20"))
	out.wait(t, 2, "beat ")
	dir, _ := saved(t, vm, false)
	memory, err := os.OpenFile(filepath.Join(dir, "memory"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer memory.Close()
	const at = 64<<20 + 8
	if _, err := memory.WriteAt([]byte{0x55}, at); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("page %d", at/pageSize)
	if _, err := restore(t, dir, false, Options{}); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v\nwant %q in it", err, want)
	}
	there := newScreen()
	r, err := restore(t, dir, true, Options{Console: NewConsole(there)})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Run(); err != nil {
		t.Fatal(err)
	}
	var lost *migration.LostError
	if _, err := r.Wait(); !errors.As(err, &lost) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v\nwant %q in it", err, want)
	}
	if err := r.VM.Wait(t.Context()); !errors.As(err, &lost) || ExitCode(err) != ExitLost {
		t.Errorf("whoever waits for it hears %v", err)
	}
	if strings.Contains(there.String(), "BAD") {
		t.Errorf("the guest has seen it:\n%s", there)
	}
}

// failing has files of a snapshot of which one takes nothing.
func failing(t *testing.T, which int) *snapshot.Files {
	t.Helper()
	var files []*os.File
	for i := range snapshot.NumFiles {
		fd, err := unix.MemfdCreate("snapshot", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		if i == which {
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, os.NewFile(uintptr(fd), "snapshot"))
	}
	f, err := snapshot.FromList(files)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

func TestAVMRunsOnThatCannotBeSaved(t *testing.T) {
	vm, out := boot(t, tinyConfig("work=write order=rand fill=1 check=1 beat=20"))
	out.wait(t, 1, "beat ")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, leave := range []bool{false, true} {
		for name, save := range map[string]func() error{
			"machine.json": func() error {
				_, err := vm.Save(t.Context(), failing(t, 0), SaveOptions{LeaveRunning: leave})
				return err
			},
			"state": func() error {
				_, err := vm.Save(t.Context(), failing(t, 1), SaveOptions{LeaveRunning: leave})
				return err
			},
			"memory": func() error {
				_, err := vm.Save(t.Context(), failing(t, 2), SaveOptions{LeaveRunning: leave})
				return err
			},
			"called off": func() error { _, err := vm.Save(ctx, failing(t, -1), SaveOptions{LeaveRunning: leave}); return err },
			"migrating": func() error {
				if err := vm.Depart(); err != nil {
					return nil
				}
				defer vm.Stay()
				_, err := vm.Save(t.Context(), failing(t, -1), SaveOptions{LeaveRunning: leave})
				if !errors.As(err, new(*StateError)) {
					return nil
				}
				return err
			},
		} {
			err := save()
			if err == nil {
				t.Fatalf("%s, left running %t: saved", name, leave)
			}
			if s := vm.State(); s != StateRunning {
				t.Fatalf("%s, left running %t: it is %v after %v", name, leave, s, err)
			}
			out.wait(t, lines(out.String(), "beat ")+2, "beat ")
		}
	}
	if err := vm.Depart(); err != nil {
		t.Errorf("it cannot migrate any more: %v", err)
	}
	vm.Stay()
	if strings.Contains(out.String(), "BAD") {
		t.Errorf("%s", out)
	}
}

// Nobody disturbs a snapshot, and a VM that is to end need not wait for it.
func TestWhatASnapshotRefuses(t *testing.T) {
	call, vm, _ := serve(t, tinyConfig("beat=20"))
	if err := vm.begin(CommandSnapshot, ErrandSnapshot); err != nil {
		t.Fatal(err)
	}
	for path, method := range map[string]string{"/v1/vm/pause": http.MethodPut, "/v1/vm/resume": http.MethodPut, "/v1/vm/grow": http.MethodPut} {
		r := call.do(t, method, path, nil)
		if got := into[APIError](t, r); got.Code != CodeWrongState || !strings.Contains(got.Message, "a snapshot of test is being made") {
			t.Errorf("%s: %+v", path, r)
		}
	}
	r := call.do(t, http.MethodPost, "/v1/vm/migration", MigrateRequest{Destination: "tcp:127.0.0.1:1"})
	if got := into[APIError](t, r); got.ExitCode != ExitRefused || !strings.Contains(got.Message, "snapshot") {
		t.Errorf("a migration: %+v", r)
	}
	vm.Stay()
	r = call.do(t, http.MethodPost, "/v1/vm/snapshot", SnapshotRequest{Dir: "/nowhere"})
	if got := into[APIError](t, r); got.Code != CodeBadRequest || !strings.Contains(got.Message, "0 files, has to be 4") {
		t.Errorf("without files: %+v", r)
	}
}

// A VM may end at any time while most of its memory is still in a file.
func TestALazyVMMayEndBeforeItsMemoryIsHere(t *testing.T) {
	vm, out := boot(t, tinyConfig("fill=1 work=touch order=rand beat=20"))
	out.wait(t, 1, "beat ")
	dir, _ := saved(t, vm, false)
	for i := range 10 {
		r, err := restore(t, dir, true, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			r.VM.Stop() // it never runs
			continue
		}
		if err := r.Run(); err != nil {
			t.Fatal(err)
		}
		if err := r.VM.PressPowerButton(); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Duration(i) * time.Millisecond) // to be somewhere else each time
		if err := r.VM.PowerOff(); err != nil {
			t.Error(err)
		}
		if _, err := r.Wait(); err != nil {
			t.Error(err)
		}
		if err := ended(t, r.VM); err != nil {
			t.Error(err)
		}
	}
}

func TestADiskThatWasWrittenToSinceIsRefused(t *testing.T) {
	config := withDisks(t)
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	dir, _ := saved(t, vm, false)
	if err := builds(t, dir, Options{}); err != nil {
		t.Fatalf("disks as they were: %v", err)
	}
	later := time.Now().Add(time.Hour)
	for i, d := range config.Disks {
		if err := os.Chtimes(d.Path, later, later); err != nil {
			t.Fatal(err)
		}
		err := builds(t, dir, Options{})
		if d.ReadOnly != (err == nil) {
			t.Errorf("disk %d: read-only %t: %v", i, d.ReadOnly, err)
		}
		if err == nil {
			continue
		}
		if !strings.Contains(err.Error(), d.Path) || !strings.Contains(err.Error(), "--disk") {
			t.Error(err)
		}
		if err := os.Chtimes(d.Path, later, vmTime(t, dir, i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(config.Disks[0].Path, later, later); err != nil {
		t.Fatal(err)
	}
	var named []string
	for _, d := range config.Disks {
		named = append(named, d.Path)
	}
	if err := builds(t, dir, Options{Disks: named}); err != nil {
		t.Errorf("named: %v", err)
	}
	if err := builds(t, dir, Options{Disks: named[:1]}); err == nil || !strings.Contains(err.Error(), "say --disk FILE for each") {
		t.Errorf("one of two named: %v", err)
	}
}

// vmTime is when a disk was written last, by a snapshot.
func vmTime(t *testing.T, dir string, disk int) time.Time {
	t.Helper()
	files, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	r, err := snapshot.NewReader(files)
	if err != nil {
		t.Fatal(err)
	}
	return r.Head.Disks[disk].Modified
}
