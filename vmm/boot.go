package vmm

import (
	"bytes"
	"errors"

	"microvm/guest"
	"microvm/guest/tiny"
)

// bootFiles are the files that a VM boots from, open.
type bootFiles struct {
	kernel, initrd guest.Image
}

// openBoot opens what config names, or the embedded tiny kernel.
func openBoot(config Config) (*bootFiles, error) {
	if config.Kernel == "" {
		b := tiny.Kernel()
		return &bootFiles{kernel: guest.Image{ReaderAt: bytes.NewReader(b), Size: int64(len(b)), Name: "tiny (embedded)"}}, nil
	}
	var files bootFiles
	var err error
	if files.kernel, err = guest.OpenImage("kernel", config.Kernel); err != nil {
		return nil, err
	}
	if config.Initrd != "" {
		if files.initrd, err = guest.OpenImage("initrd", config.Initrd); err != nil {
			return nil, errors.Join(err, files.kernel.Close())
		}
	}
	return &files, nil
}

func (f *bootFiles) close() {
	// They were only read; nothing is lost if closing fails.
	_ = f.kernel.Close()
	_ = f.initrd.Close()
}

// boot loads the kernel and sets the vCPUs to their power-on state, the first
// one at the kernel's entry.
func (vm *VM) boot(files *bootFiles) error {
	for i, c := range vm.cpus.cpus {
		cpuid, err := vm.hostCPUID(i, vm.tscKHz)
		if err != nil {
			return err
		}
		if err := c.kvm.SetCPUID(cpuid); err != nil {
			return err
		}
		if err := c.kvm.SetMSRs(guest.PowerOnMSRs()); err != nil {
			return err
		}
		if i == 0 {
			vm.cpuid = cpuid
		}
	}
	entry, err := guest.Load(vm.mem, guest.Config{
		Kernel:  files.kernel,
		Initrd:  files.initrd,
		Cmdline: vm.config.Cmdline,
		CPUs:    vm.config.CPUs,
		RAM:     vm.config.Memory,

		VirtioMMIO: vm.virtioPlaces(),
		Generation: newGeneration(),
	})
	if err != nil {
		return err
	}
	return entry.Apply(vm.cpus.cpus[0].kvm)
}
