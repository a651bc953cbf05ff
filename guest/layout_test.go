package guest

import (
	"slices"
	"testing"
)

func TestRAMRegions(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	tests := []struct {
		size uint64
		want []RAMRegion
		err  string
	}{
		{128 * mib, []RAMRegion{{0, 0, 128 * mib}}, ""},
		{3 * gib, []RAMRegion{{0, 0, 3 * gib}}, ""},
		{3*gib + mib, []RAMRegion{{0, 0, 3 * gib}, {4 * gib, 3 * gib, mib}}, ""},
		{64 * gib, []RAMRegion{{0, 0, 3 * gib}, {4 * gib, 3 * gib, 61 * gib}}, ""},
		{0, nil, "guest memory 0 bytes: must be from 128 MiB to 64 GiB"},
		{64*gib + mib, nil, "must be from"},
		{^uint64(0), nil, "must be from"},
		{128*mib + 4096, nil, "must be a multiple of 1 MiB"},
	}
	for _, tt := range tests {
		got, err := RAMRegions(tt.size)
		checkErr(t, err, tt.err)
		if !slices.Equal(got, tt.want) {
			t.Errorf("RAMRegions(%#x) = %#x, want %#x", tt.size, got, tt.want)
		}
	}
}

func TestE820MapIsSortedAndCoversAllRAM(t *testing.T) {
	for _, size := range []uint64{MinRAM, 3 << 30, 5 << 30, MaxRAM} {
		regions, err := RAMRegions(size)
		if err != nil {
			t.Fatal(err)
		}
		var usable, end uint64
		for _, e := range e820Map(regions) {
			if e.addr < end || e.size == 0 {
				t.Errorf("%#x: entry %#x +%#x after %#x", size, e.addr, e.size, end)
			}
			end = e.addr + e.size
			if e.typ == e820RAM {
				usable += e.size
			}
		}
		if want := size - (kernelMin - ebdaBase); usable != want {
			t.Errorf("%#x: %#x bytes usable, want %#x", size, usable, want)
		}
	}
}

func TestLowMemoryPiecesDoNotOverlap(t *testing.T) {
	c := baseConfig(Image{})
	for i := range uint32(14) {
		c.VirtioMMIO = append(c.VirtioMMIO, MMIODevice{MMIOBase + uint64(i)*MMIOSize, MMIOSize, 10 + i})
	}
	acpi, err := newACPI(c)
	if err != nil {
		t.Fatal(err)
	}
	b := bootParams{ram: newRAM(t, MaxRAM).regions, initrd: span{1 << 30, 2 << 30}}
	pieces := []piece{biosData(), bootGDT(), b.startInfo(), b.zeroPage(nil), bootPageTables(),
		{"command line", cmdlineAddr, make([]byte, cmdlineArea)}, {"EBDA", ebdaBase, make([]byte, 1024)},
		{"ACPI", acpiBase, acpi.blob}, {"generation ID", GenerationAddr, make([]byte, pageSize)}, {"kernel", kernelMin, nil}}
	for i, p := range pieces[1:] {
		if prev := pieces[i]; prev.gpa+uint64(len(prev.data)) > p.gpa {
			t.Errorf("%s: %d bytes at %#x reach into the %s at %#x", prev.what, len(prev.data), prev.gpa, p.what, p.gpa)
		}
	}
}

func TestSpaceTakesOnlyWhatIsFree(t *testing.T) {
	s := space{{100, 200}, {300, 400}}
	for _, sp := range []span{{90, 110}, {190, 310}, {390, 410}, {250, 260}, {150, 140}} {
		if s.take(sp) {
			t.Errorf("took %v", sp)
		}
	}
	for _, sp := range []span{{120, 130}, {300, 400}, {100, 120}, {150, 200}} {
		if !s.take(sp) {
			t.Errorf("%v is free and was not taken from %v", sp, s)
		}
	}
	if want := (space{{130, 150}}); !slices.Equal(s, want) {
		t.Errorf("left %v, want %v", s, want)
	}
}

func TestTimerReachesThePinThatTheMADTNames(t *testing.T) {
	pins := map[[2]uint32]uint32{}
	for _, r := range GSIRoutes() {
		pins[[2]uint32{r.Chip, r.Pin}] = r.GSI + 1
	}
	if pins[[2]uint32{2, 2}] != 1 || pins[[2]uint32{2, 0}] != 0 || pins[[2]uint32{0, 0}] != 1 {
		t.Errorf("GSI 0 does not go to IOAPIC pin 2 and PIC line 0 alone: %v", pins)
	}
	if pins[[2]uint32{2, 23}] != 24 || pins[[2]uint32{1, 1}] != 10 || len(pins) != 23+15 {
		t.Errorf("%d routes: %v", len(pins), pins)
	}
}
