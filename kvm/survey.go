package kvm

import (
	"maps"
	"slices"
)

// An Offer is what a host's KVM says of one capability.
type Offer struct {
	Cap    Cap
	Value  int  // what KVM_CHECK_EXTENSION answers: 0, it is not there
	Needed bool // Open fails without it
}

// Survey asks /dev/kvm for the version of its API and, if that is the one that
// there is, for each capability that this project asks for, by number. Unlike
// Open it goes on where one is missing.
func Survey() (version int, offers []Offer, err error) {
	fd, err := openFile(device)
	if err != nil {
		return 0, nil, err
	}
	s := &System{fd: fd}
	defer s.Close()
	if version, err = ioctl(s.fd, getAPIVersion, 0); err != nil || version != apiVersion {
		return version, nil, err
	}
	for _, c := range slices.Sorted(maps.Keys(capNames)) {
		n, err := s.Capability(c)
		if err != nil {
			return version, nil, err
		}
		offers = append(offers, Offer{c, n, slices.Contains(required, c)})
	}
	return version, offers, nil
}
