package kvm

// TSCKHz reads the frequency of the guest's TSC in kHz.
func (v *VCPU) TSCKHz() (uint32, error) {
	n, err := ioctl(v.fd, getTSCKHz, 0)
	if err != nil {
		return 0, v.errorf("%w", err)
	}
	return uint32(n), nil
}

// SetTSCKHz sets the frequency of the guest's TSC in kHz. A host that cannot
// scale (CapTSCControl) takes only its own.
func (v *VCPU) SetTSCKHz(kHz uint32) error {
	if _, err := ioctl(v.fd, setTSCKHz, uintptr(kHz)); err != nil {
		return v.errorf("%d kHz, host's TSC %d kHz: %w", kHz, v.hostTSCKHz, err)
	}
	return nil
}
