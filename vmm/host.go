package vmm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"microvm/guest"
	"microvm/kvm"
)

// hostCPUID is what a vCPU of this VM would be told on this host.
func (vm *VM) hostCPUID(index int, tscKHz uint32) ([]kvm.CPUIDEntry, error) {
	supported, err := vm.sys.SupportedCPUID()
	if err != nil {
		return nil, err
	}
	deadline, err := vm.kvm.Capability(kvm.CapTSCDeadlineTimer)
	if err != nil {
		return nil, err
	}
	return guest.CPUID(supported, guest.CPUIDConfig{
		Index: index, CPUs: vm.config.CPUs, TSCKHz: tscKHz, TSCDeadline: deadline > 0,
	}), nil
}

// tscTolerance is the difference between two TSC frequencies, in parts per
// million, that KVM too takes for none (its parameter tsc_tolerance_ppm).
const tscTolerance = 250

// sameTSC says whether two frequencies in kHz count as the same.
func sameTSC(guest, host uint32) bool {
	difference := int64(guest) - int64(host)
	return max(difference, -difference)*1_000_000 <= int64(host)*tscTolerance
}

// checkTSC refuses a guest whose clock would run at another speed here. Where
// the processor can scale, KVM is asked whether it can by so much: by the time
// the vCPUs' state comes it would be too late to refuse.
func (vm *VM) checkTSC(need uint32) error {
	have := vm.tscKHz
	if sameTSC(need, have) {
		return nil
	}
	scaling, err := vm.sys.Capability(kvm.CapTSCControl)
	if err != nil {
		return err
	}
	if scaling == 0 {
		return fmt.Errorf("the guest's TSC runs at %d kHz, this host's at %d kHz, and this host's processor cannot scale it", need, have)
	}
	if need == 0 {
		return fmt.Errorf("the guest's TSC runs at 0 kHz, says the source; this host's runs at %d kHz", have)
	}
	if err := vm.cpus.cpus[0].kvm.SetTSCKHz(need); err != nil {
		return fmt.Errorf("the guest's TSC runs at %d kHz, this host's at %d kHz, which its processor cannot be scaled to: %w", need, have, err)
	}
	return nil
}

// checkMemory refuses a guest that this host has no memory for at the moment.
// Memory is taken as the guest touches it, so mapping it proves nothing.
func checkMemory(need uint64, hugepages bool) error {
	if hugepages {
		return nil // the pool is asked when the block is mapped
	}
	available, group, err := AvailableMemory()
	if err != nil {
		return err
	}
	switch {
	case need <= available:
		return nil
	case group != "":
		return fmt.Errorf("the guest has %d MiB of memory, this host's cgroup %s lets this process take %d MiB more; raise its limit (systemd: MemoryMax=)", need>>20, group, available>>20)
	}
	return fmt.Errorf("the guest has %d MiB of memory, this host has %d MiB available", need>>20, available>>20)
}

// AvailableMemory is how many bytes this host could give a guest of this process
// now. If a cgroup bounds that, group is its path.
func AvailableMemory() (bytes uint64, group string, err error) {
	meminfo, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, "", err
	}
	available, err := memAvailable(meminfo)
	if err != nil {
		return 0, "", fmt.Errorf("/proc/meminfo: %w", err)
	}
	cgroups, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return available, "", nil // a kernel without them
	}
	if left, group := groupMemory(cgroupRoot, cgroups); group != "" && left < available {
		return left, group, nil
	}
	return available, "", nil
}

// memAvailable finds, in the form of /proc/meminfo, how many bytes can be had
// without swapping.
func memAvailable(meminfo []byte) (uint64, error) {
	for s := bufio.NewScanner(bytes.NewReader(meminfo)); s.Scan(); {
		value, ok := strings.CutPrefix(s.Text(), "MemAvailable:")
		if !ok {
			continue
		}
		kib, err := strconv.ParseUint(strings.TrimSpace(strings.TrimSuffix(value, "kB")), 10, 54)
		return kib << 10, err
	}
	return 0, errors.New("no MemAvailable")
}
