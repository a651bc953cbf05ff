package guest

// The VM generation ID ("Virtual Machine Generation ID", Microsoft, 2018): 16
// random bytes in a reserved page of guest memory that are others when the
// guest goes on from a time that it may have gone on from before, so that it
// knows to make its random numbers, and what it draws from them, anew. It moves
// with memory, and stays the same where a VM moves.
//
// To change it: write the bytes, then pulse GenerationIRQ, whose event device
// (ACPI 6.5, 5.6.9) has the guest look.
const (
	// GenerationAddr is where the bytes are, in a page of their own.
	GenerationAddr = acpiEnd - pageSize
	// GenerationIRQ is an edge-triggered line, active high.
	GenerationIRQ = 5

	tablesEnd = GenerationAddr // of ACPI
)

// GenerationID is one VM generation ID.
type GenerationID [16]byte

// notifyChanged is the value that tells a driver of a new generation ID.
const notifyChanged = 0x80

// generationDevices are the device that says where the bytes are, and the one
// that says that they have changed.
func generationDevices() [][]byte {
	return [][]byte{
		amlDevice("VGEN",
			amlName("_HID", amlText("MVMM0001")),
			amlName("_CID", amlText("VM_Gen_Counter")),
			amlName("_DDN", amlText("VM_Gen_Counter")),
			amlName("ADDR", amlPackage(amlInt(GenerationAddr), amlInt(0)))), // low and high half
		amlDevice("GED_",
			amlName("_HID", amlText("ACPI0013")),
			amlName("_UID", amlInt(0)),
			amlName("_CRS", amlResources(resInterrupt(GenerationIRQ))),
			amlMethod("_EVT", 1, amlNotify("VGEN", notifyChanged))),
	}
}
