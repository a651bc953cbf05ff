package kvm

type msrToSave struct {
	index     uint32
	essential bool
}

func saveList(indices []uint32) []msrToSave { return nil }

type restoredVM struct{}
