package guest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// iasl runs ACPICA's compiler in dir.
func iasl(t *testing.T, dir string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("iasl")
	if err != nil {
		t.Skip("iasl is missing: apt-get install acpica-tools")
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("iasl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// disassemble returns table's source; a complaint of ACPICA's is an error.
func disassemble(t *testing.T, dir, name string, table []byte) string {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name+".dat"), table, 0o600); err != nil {
		t.Fatal(err)
	}
	out := iasl(t, dir, "-d", name+".dat")
	dsl, err := os.ReadFile(filepath.Join(dir, name+".dsl"))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, bad := range []string{"Invalid", "Error", "Warning", "ncorrect checksum", "ERROR"} {
		if strings.Contains(out, bad) || bytes.Contains(dsl, []byte(bad)) {
			t.Errorf("%s: iasl complains:\n%s\n%s", name, out, dsl)
		}
	}
	return string(dsl)
}

func TestACPICAReadsTheFixedTables(t *testing.T) {
	a, m := testACPI(t, MaxCPUs, 14)
	dir := t.TempDir()
	xsdt := m.u64(a.rsdp + 24)
	disassemble(t, dir, "xsdt", m.table(t, xsdt, "XSDT"))
	fadt := disassemble(t, dir, "facp", m.table(t, m.u64(xsdt+36), "FACP"))
	madt := disassemble(t, dir, "apic", m.table(t, m.u64(xsdt+44), "APIC"))
	// Field names and values, without the columns between them.
	has := func(text, field, value string) {
		t.Helper()
		for line := range strings.Lines(text) {
			if name, v, ok := strings.Cut(line, " : "); ok && strings.HasSuffix(name, field) && strings.TrimSpace(v) == value {
				return
			}
		}
		t.Errorf("no %q : %s in\n%s", field, value, text)
	}
	has(fadt, "SCI Interrupt", "0009")
	has(fadt, "PM1A Event Block Address", "00000600")
	has(fadt, "PM1A Control Block Address", "00000604")
	has(fadt, "Reset Register Supported (V2)", "1")
	has(fadt, "Value to cause reset", "FE")
	has(fadt, "Hardware Reduced (V5)", "0")
	has(fadt, "8042 Present on ports 60/64 (V2)", "0")
	has(madt, "I/O Apic ID", "20")
	if n := strings.Count(madt, "[Processor Local APIC]"); n != MaxCPUs {
		t.Errorf("%d local APICs", n)
	}
}

// TestACPICAReadsTheDSDT has ACPICA disassemble the DSDT and compile that
// again: the same AML must come out. 60 devices make a scope that is longer
// than 4095 bytes.
func TestACPICAReadsTheDSDT(t *testing.T) {
	for _, devices := range []int{0, 1, 14, 60} {
		t.Run(fmt.Sprintf("%d devices", devices), func(t *testing.T) {
			var mmio []MMIODevice
			for i := range devices {
				mmio = append(mmio, MMIODevice{MMIOBase + uint64(i)*MMIOSize, MMIOSize, 16})
			}
			dir, ours := t.TempDir(), newTable("DSDT", 2, dsdtBody(mmio))
			dsl := disassemble(t, dir, "dsdt", ours)
			want := map[string]int{
				`DefinitionBlock ("", "DSDT", 2, "MICRVM", "MICROVM ", 0x00000001)`: 1,
				`Name (_S5, Package (0x04)`:                                         1,
				`EisaId ("PNP0501")`:                                                1,
				`EisaId ("PNP0B00")`:                                                1,
				`"QEMU0001"`:                                                        1,
				`0x03F8,             // Range M`:                                    2,
				`IRQNoFlags ()`:                                                     2,
				`"LNRO0005"`:                                                        devices,
				`Memory32Fixed (ReadWrite,`:                                         devices,
				`(ResourceConsumer, Edge, Active`:                                   devices + 1,
				`"VM_Gen_Counter"`:                                                  2,
				`Method (_EVT, 1, Serialized)`:                                      1,
				`Notify (VGEN, 0x80)`:                                               1,
			}
			for text, n := range want {
				if got := strings.Count(dsl, text); got != n {
					t.Errorf("%d of %s, want %d:\n%s", got, text, n, dsl)
				}
			}
			out := iasl(t, dir, "-p", "again", "dsdt.dsl")
			if !strings.Contains(out, "0 Errors, 0 Warnings") {
				t.Errorf("the DSDT does not compile cleanly again:\n%s", out)
			}
			theirs, err := os.ReadFile(filepath.Join(dir, "again.aml"))
			if err != nil {
				t.Fatal(err)
			}
			// The headers differ in who made the table.
			if !bytes.Equal(theirs[tableHeader:], ours[tableHeader:]) {
				t.Errorf("ACPICA encodes the same source otherwise:\n% x\n% x", theirs[tableHeader:], ours[tableHeader:])
			}
		})
	}
}
