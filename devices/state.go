package devices

import "fmt"

// checkState refuses state that can't be of this device's format before its
// fields are looked at. size is the exact length of format want.
func checkState(id string, version, want uint32, b []byte, size int) error {
	if version != want {
		return fmt.Errorf("%s: state version %d: this build reads version %d; use the same release on both sides", id, version, want)
	}
	if len(b) != size {
		return fmt.Errorf("%s: state version %d: %d bytes, want %d", id, version, len(b), size)
	}
	return nil
}

// reserved refuses a field that has bits set which its register does not have.
func reserved(id, field string, v, valid uint64) error {
	if v&^valid != 0 {
		return fmt.Errorf("%s: state: %s %#x: reserved bits %#x are set", id, field, v, v&^valid)
	}
	return nil
}
