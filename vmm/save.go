package vmm

import (
	"context"
	"fmt"
	"time"

	"microvm/migration"
	"microvm/migration/snapshot"
)

// SaveOptions of a VM that is to be written to a directory.
type SaveOptions struct {
	// LeaveRunning has the VM go on here afterwards. Without it the VM ends here, once
	// its snapshot is on the disk.
	LeaveRunning bool
	// Dir is what the directory is called, for messages.
	Dir     string
	Program string // this program's version
}

// Save writes the VM to files, which are empty. On an error, as when ctx ends, the VM
// goes on as it was, and what the files have is worth nothing. A VM that its user has
// paused stays paused, and is so when it is restored.
//
// Its disks are no part of it: the snapshot says which they are and when they were
// written last, and is of use for as long as that is so.
func (vm *VM) Save(ctx context.Context, files *snapshot.Files, o SaveOptions) (*migration.SaveReport, error) {
	if err := vm.inMemory.begin(); err != nil {
		return nil, err
	}
	defer vm.inMemory.done()
	if err := vm.begin(CommandSnapshot, ErrandSnapshot); err != nil {
		return nil, err
	}
	rep, err := vm.save(ctx, files, o)
	if err != nil {
		vm.Stay()
		return nil, fmt.Errorf("save VM %s: %w", vm.config.Name, err)
	}
	vm.log.Info("the VM is saved", "in", o.Dir, "memory", rep.BytesWritten, "downtime", time.Duration(rep.DowntimeNS), "took", time.Duration(rep.TotalNS))
	if o.LeaveRunning {
		vm.Stay()
		return rep, nil
	}
	// Paused, and on this errand for ever: nothing makes it run here again.
	vm.end(nil, "saved in "+o.Dir)
	return rep, nil
}

func (vm *VM) save(ctx context.Context, files *snapshot.Files, o SaveOptions) (*migration.SaveReport, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-vm.done:
			cancel(errEnded)
		case <-ctx.Done():
		}
	}()
	var blocks []snapshot.Block
	for _, b := range vm.blockConfigs() {
		blocks = append(blocks, snapshot.Block(b))
	}
	w, err := snapshot.NewWriter(files, blocks)
	if err != nil {
		return nil, err
	}
	head := func() (snapshot.Head, error) { return vm.head(o.Program) }
	return migration.Save(ctx, vm, w, migration.SaveOptions{LeaveRunning: o.LeaveRunning, Head: head, Log: vm.log})
}

// head describes the VM, which is paused, and has its disks written out: they have to
// be as old as what its memory says of them.
func (vm *VM) head(program string) (snapshot.Head, error) {
	if err := vm.settleDisks(); err != nil {
		return snapshot.Head{}, err
	}
	machine, err := vm.Config()
	if err != nil {
		return snapshot.Head{}, err
	}
	h := snapshot.Head{Program: program, VM: vm.config.Name, Taken: time.Now(), Machine: machine}
	for i, d := range vm.disks {
		at, err := d.blk.Image().Modified()
		if err != nil {
			return h, err
		}
		h.Disks = append(h.Disks, snapshot.Disk{Path: vm.config.Disks[i].Path, Bytes: d.blk.Bytes(), Modified: at})
	}
	return h, nil
}
