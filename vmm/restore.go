package vmm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"microvm/migration"
	"microvm/migration/snapshot"
)

// A Restored VM comes from a snapshot.
//
//	r, err := Restore(ctx, files, lazy, options)
//	err = server.Serve(ctx, r.VM, r.Run)
//	err = r.Wait()
type Restored struct {
	VM *VM
	r  *migration.Restoration
}

// Restore builds the VM that files describe, and loads it: with lazy but for most of
// its memory, which follows when it runs. The files have to stay as they are until
// Wait has returned; they may be closed after that.
//
// What o does not name of this host is as it was: disks, network cards. A disk that is
// not named and has been written to since is refused, for the guest would find another
// than it left. The guest's clock goes on from where it stood, and it gets a new
// generation ID, since it may go on from here more than once.
func Restore(ctx context.Context, files *snapshot.Files, lazy bool, o Options) (*Restored, error) {
	file, err := snapshot.NewReader(files)
	if err != nil {
		return nil, err
	}
	named := o.Disks != nil
	if err := o.asItWas(file.Head); err != nil {
		return nil, err
	}
	o.clockStands = true
	vm, err := NewIncoming(ctx, file.Head.Machine, o)
	if err != nil {
		return nil, err
	}
	r, err := vm.restore(file, named, lazy)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("restore VM %s: %w", vm.Name(), err), vm.Close())
	}
	return r, nil
}

// asItWas fills in what is the same on this host as where the snapshot was taken.
func (o *Options) asItWas(h snapshot.Head) error {
	c, err := parseMachine(h.Machine)
	if err != nil {
		return err
	}
	if o.Disks == nil {
		for _, d := range c.VM.Disks {
			o.Disks = append(o.Disks, d.Path)
		}
	}
	if o.Nets == nil {
		for i, n := range c.VM.Nets {
			if n.Tap.FD != 0 {
				return fmt.Errorf("network card %d was on a descriptor that another program opened: say what it is on now, --net for each card", i)
			}
			o.Nets = append(o.Nets, n.Tap)
		}
	}
	return nil
}

func (vm *VM) restore(file *snapshot.Reader, named, lazy bool) (*Restored, error) {
	vm.ofFile = true
	// Before anybody looks at what is in them.
	if err := vm.lockDisks(); err != nil {
		return nil, err
	}
	if !named {
		if err := vm.checkUnchanged(file.Head); err != nil {
			return nil, err
		}
	}
	r, err := migration.NewRestoration(vm, file, migration.RestoreOptions{Lazy: lazy, Log: vm.log})
	if err != nil {
		return nil, err
	}
	if err := vm.changeGeneration(); err != nil {
		r.GiveUp(err)
		return nil, err
	}
	return &Restored{vm, r}, nil
}

// checkUnchanged refuses disks that are not as they were when the snapshot was taken.
func (vm *VM) checkUnchanged(h snapshot.Head) error {
	if len(h.Disks) != len(vm.disks) {
		return fmt.Errorf("the snapshot tells of %d disks, and the VM has %d", len(h.Disks), len(vm.disks))
	}
	var errs []error
	for i, d := range vm.disks {
		if vm.config.Disks[i].ReadOnly {
			continue
		}
		at, err := d.blk.Image().Modified()
		if err == nil && !at.Equal(h.Disks[i].Modified) {
			err = fmt.Errorf("disk %s was written to at %s, after the snapshot (%s): the guest would find another disk than it left; say --disk for each disk, with a copy from then, or with this one if that is what is wanted",
				d.blk.Image().Path(), at.Format(time.DateTime), h.Disks[i].Modified.Format(time.DateTime))
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Run runs the VM, unless it was paused when it was saved. Wait has to be called then.
func (r *Restored) Run() error {
	if err := r.VM.inMemory.begin(); err != nil {
		return err
	}
	if err := r.r.Run(); err != nil {
		r.VM.inMemory.done()
		return err
	}
	go func() {
		defer r.VM.inMemory.done()
		_, _ = r.r.Wait()
	}()
	return nil
}

// Wait returns when all of the VM's memory is here, or it has ended. The error is a
// *migration.LostError: it ran, and needs memory that cannot be read.
func (r *Restored) Wait() (migration.RestoreReport, error) { return r.r.Wait() }

// PagesLeft is how many pages of 4096 bytes are still to be read.
func (r *Restored) PagesLeft() uint64 { return r.r.PagesLeft() }
