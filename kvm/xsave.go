package kvm

import "fmt"

// maxXSaveSize bounds what we believe of a state's size: the largest area that
// a processor has today (with AMX tiles) is near 11 KiB.
const maxXSaveSize = 64 << 10

// xsaveSize is how many bytes KVM_SET_XSAVE reads and KVM_GET_XSAVE2 writes.
// Without the capability it is struct kvm_xsave and KVM_GET_XSAVE.
func (vm *VM) xsaveSize() (size int, get request, err error) {
	n, err := vm.Capability(CapXSave2)
	if err != nil {
		return 0, request{}, err
	}
	if n < minXSaveSize {
		return minXSaveSize, getXSave, nil
	}
	return n, getXSave2, nil
}

// xsave reads the FPU, SSE, AVX... state: an XSAVE area in the standard format,
// laid out as the host's CPUID leaf 0xD says.
func (v *VCPU) xsave() ([]byte, error) {
	size, get, err := v.vm.xsaveSize()
	if err != nil {
		return nil, err
	}
	area := make([]byte, size)
	if err := call(v, get, &area[0]); err != nil {
		return nil, err
	}
	return area, nil
}

// setXSave writes what xsave read on another host, whose area may have another
// size: what is past the end of the shorter one must be unused.
func (v *VCPU) setXSave(area []byte) error {
	size, _, err := v.vm.xsaveSize()
	if err != nil {
		return err
	}
	for i := size; i < len(area); i++ {
		if area[i] != 0 {
			return v.errorf("%s: the state has %d bytes, this host takes %d: the guest uses processor state that this host lacks",
				setXSave.name, len(area), size)
		}
	}
	buf := make([]byte, max(size, len(area)))
	copy(buf, area)
	if err := call(v, setXSave, &buf[0]); err != nil {
		return fmt.Errorf("XSAVE area of %d bytes: %w", len(area), err)
	}
	return nil
}
