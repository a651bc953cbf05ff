package guest

import (
	"bytes"
	"testing"
)

// TestAMLPackageLengths crosses each boundary where the length takes one byte
// more: it counts itself.
func TestAMLPackageLengths(t *testing.T) {
	tests := []struct {
		body int
		want []byte
	}{
		{0, []byte{0x01}},
		{61, []byte{62}},
		{62, []byte{63}},
		{63, []byte{0x41, 0x04}},           // 65
		{77, []byte{0x4F, 0x04}},           // 79
		{78, []byte{0x40, 0x05}},           // 80
		{4093, []byte{0x4F, 0xFF}},         // 4095
		{4094, []byte{0x81, 0x00, 0x01}},   // 4097
		{65536, []byte{0x83, 0x00, 0x10}},  // 65539
		{1048572, []byte{0x8F, 255, 255}},  // 1048575
		{1048573, []byte{0xC1, 0, 0, 0x1}}, // 1048577
	}
	for _, tt := range tests {
		body := pattern(tt.body, 5)
		got := amlPkg(body)
		head := got[:len(got)-tt.body]
		if !bytes.Equal(head, tt.want) || !bytes.Equal(got[len(head):], body) {
			t.Errorf("body of %d bytes: length % x, want % x", tt.body, head, tt.want)
		}
	}
}

func TestAMLEncodings(t *testing.T) {
	tests := []struct {
		name      string
		got, want []byte
	}{
		{"zero", amlInt(0), []byte{0x00}},
		{"one", amlInt(1), []byte{0x01}},
		{"byte", amlInt(2), []byte{0x0A, 2}},
		{"byte max", amlInt(0xFF), []byte{0x0A, 0xFF}},
		{"word", amlInt(0x100), []byte{0x0B, 0, 1}},
		{"dword", amlInt(0x10000), []byte{0x0C, 0, 0, 1, 0}},
		{"qword", amlInt(1 << 32), []byte{0x0E, 0, 0, 0, 0, 1, 0, 0, 0}},
		{"text", amlText("AB"), []byte{0x0D, 'A', 'B', 0}},
		{"EISA id", amlEISA("PNP0501"), []byte{0x0C, 0x41, 0xD0, 0x05, 0x01}},
		{"EISA id with letters", amlEISA("PNP0B0C"), []byte{0x0C, 0x41, 0xD0, 0x0B, 0x0C}},
		{"name", amlName("_UID", amlInt(3)), []byte{0x08, '_', 'U', 'I', 'D', 0x0A, 3}},
		{"scope", amlScope("_SB_"), []byte{0x10, 5, '_', 'S', 'B', '_'}},
		{"device", amlDevice("COM1", []byte{0xA3}), []byte{0x5B, 0x82, 6, 'C', 'O', 'M', '1', 0xA3}},
		{"package", amlPackage(amlInt(5), amlInt(0)), []byte{0x12, 5, 2, 0x0A, 5, 0}},
		{"method", amlMethod("_EVT", 1, []byte{0xA3}), []byte{0x14, 7, '_', 'E', 'V', 'T', 9, 0xA3}},
		{"notify", amlNotify("VGEN", 0x80), []byte("\x86VGEN\x0A\x80")},
		{"resources", amlResources(resISAIRQ(4)), []byte{0x11, 8, 0x0A, 5, 0x22, 0x10, 0, 0x79, 0}},
		{"ports", resIOPorts(0x3F8, 8), []byte{0x47, 1, 0xF8, 3, 0xF8, 3, 1, 8}},
		{"memory", resMemory(0xD000_1000, 0x1000), []byte{0x86, 9, 0, 1, 0, 0x10, 0, 0xD0, 0, 0x10, 0, 0}},
		{"interrupt", resInterrupt(17), []byte{0x89, 6, 0, 3, 1, 17, 0, 0, 0}},
	}
	for _, tt := range tests {
		if !bytes.Equal(tt.got, tt.want) {
			t.Errorf("%s: % x, want % x", tt.name, tt.got, tt.want)
		}
	}
}
