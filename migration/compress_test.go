package migration

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"microvm/migration/wire"
)

// kinds are those that are compressed.
var kinds = []wire.Kind{wire.KindS2, wire.KindZstd}

// samplePages are pages of several sorts.
func samplePages(pages int, sort string) []byte {
	b := make([]byte, pages*wire.PageSize)
	rng := rand.New(rand.NewPCG(uint64(pages), 3))
	if sort == "text" { // words of a small language
		words := make([][]byte, 500)
		for i := range words {
			for range 2 + rng.IntN(9) {
				words[i] = append(words[i], byte('a'+rng.IntN(26)))
			}
			words[i] = append(words[i], ' ')
		}
		for at := 0; at < len(b); {
			at += copy(b[at:], words[min(rng.IntN(500), rng.IntN(500))])
		}
	}
	for i := range b {
		switch sort {
		case "noise":
			b[i] = byte(rng.Uint32())
		case "pattern":
			b[i] = pattern(uint64(i/wire.PageSize), i%wire.PageSize)
		case "few":
			if i%509 == 0 {
				b[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

func packed(kind wire.Kind, pages []byte) []byte {
	c := newCompressor(kind)
	return slices.Clone(c.compress(make([]byte, c.room(len(pages))), pages))
}

func TestCompressedPagesComeBack(t *testing.T) {
	for _, kind := range kinds {
		c, d := newCompressor(kind), &decompressor{}
		defer d.close()
		for _, n := range []int{1, 2, 31, 32, 33, wire.MaxRunPages} {
			for _, sort := range []string{"noise", "pattern", "text", "few", "zero"} {
				pages := samplePages(n, sort)
				room := make([]byte, c.room(len(pages)))
				small := c.compress(room, pages)
				if &small[0] != &room[0] {
					t.Errorf("%v, %d pages of %s: a buffer of its own, as if %d bytes were no room for %d", kind, n, sort, len(room), len(small))
				}
				got := make([]byte, len(pages))
				if err := d.decompress(kind, got, small); err != nil || !bytes.Equal(got, pages) {
					t.Errorf("%v, %d pages of %s in %d bytes: %v", kind, n, sort, len(small), err)
				}
			}
		}
	}
}

// Compressing and expanding must not wait for the garbage collector.
func TestCompressionDoesNotAllocate(t *testing.T) {
	pages := samplePages(32, "text")
	for _, kind := range kinds {
		c, d := newCompressor(kind), &decompressor{}
		defer d.close()
		room, got := make([]byte, c.room(len(pages))), make([]byte, len(pages))
		if n := testing.AllocsPerRun(50, func() {
			if err := d.decompress(kind, got, c.compress(room, pages)); err != nil {
				t.Fatal(err)
			}
		}); n > 0 && !raceDetector {
			t.Errorf("%v: %v allocations a run", kind, n)
		}
	}
}

// hostileFrames are payloads that are not what a run of 2 pages may be.
func hostileFrames() map[string]struct {
	kind  wire.Kind
	frame []byte
} {
	type frame = struct {
		kind  wire.Kind
		frame []byte
	}
	whole := samplePages(2, "pattern")
	bomb := make([]byte, 64<<20)
	z, _ := zstd.NewWriter(nil, zstd.WithWindowSize(8<<20), zstd.WithSingleSegment(false))
	unsized, _ := zstd.NewWriter(nil)
	var streamed bytes.Buffer
	unsized.Reset(&streamed)
	unsized.Write(bomb)
	unsized.Close()
	s2of := func(length uint64, rest ...byte) []byte { return append(binary.AppendUvarint(nil, length), rest...) }
	return map[string]frame{
		"s2: one page":                      {wire.KindS2, packed(wire.KindS2, whole[:wire.PageSize])},
		"s2: three pages":                   {wire.KindS2, packed(wire.KindS2, samplePages(3, "pattern"))},
		"s2: a bomb":                        {wire.KindS2, packed(wire.KindS2, bomb)},
		"s2: 4 GiB announced":               {wire.KindS2, s2of(1<<32-1, 0)},
		"s2: 2^60 announced":                {wire.KindS2, s2of(1<<60, 0)},
		"s2: no length":                     {wire.KindS2, bytes.Repeat([]byte{0xFF}, 12)},
		"s2: nothing behind its length":     {wire.KindS2, s2of(2 * wire.PageSize)},
		"s2: a copy from before it":         {wire.KindS2, s2of(2*wire.PageSize, 0x01|7<<2, 9)},
		"s2: cut off":                       {wire.KindS2, packed(wire.KindS2, whole)[:20]},
		"s2: zstd in it":                    {wire.KindS2, packed(wire.KindZstd, whole)},
		"zstd: one page":                    {wire.KindZstd, packed(wire.KindZstd, whole[:wire.PageSize])},
		"zstd: three pages":                 {wire.KindZstd, packed(wire.KindZstd, samplePages(3, "pattern"))},
		"zstd: a bomb":                      {wire.KindZstd, packed(wire.KindZstd, bomb)},
		"zstd: a bomb of no size":           {wire.KindZstd, streamed.Bytes()},
		"zstd: a window of 8 MiB":           {wire.KindZstd, z.EncodeAll(bomb[:16<<20], nil)},
		"zstd: a window of terabytes":       {wire.KindZstd, []byte{0x28, 0xB5, 0x2F, 0xFD, 0x00, 0xFF, 0x01, 0, 0}},
		"zstd: exabytes announced":          {wire.KindZstd, append([]byte{0x28, 0xB5, 0x2F, 0xFD, 0xE0}, bytes.Repeat([]byte{0xFF}, 8)...)},
		"zstd: two frames, one too many":    {wire.KindZstd, append(packed(wire.KindZstd, whole), packed(wire.KindZstd, whole)...)},
		"zstd: nothing but what is skipped": {wire.KindZstd, []byte{0x50, 0x2A, 0x4D, 0x18, 4, 0, 0, 0, 1, 2, 3, 4}},
		"zstd: a dictionary":                {wire.KindZstd, []byte{0x28, 0xB5, 0x2F, 0xFD, 0x21, 7, 0, 1, 0, 0}},
		"zstd: cut off":                     {wire.KindZstd, packed(wire.KindZstd, whole)[:20]},
		"zstd: s2 in it":                    {wire.KindZstd, packed(wire.KindS2, whole)},
	}
}

// expandInto expands a frame into 2 pages in the middle of some memory, and
// fails the test if anything else of that changes, or much is allocated.
func expandInto(t testing.TB, d *decompressor, kind wire.Kind, frame []byte) error {
	t.Helper()
	const n = 2 * wire.PageSize
	mem := bytes.Repeat([]byte{0xA5}, 3*n)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := d.decompress(kind, mem[n:2*n], frame)
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 1<<20 {
		t.Errorf("%d bytes allocated for a frame of %d", got, len(frame))
	}
	for i, v := range mem {
		if (i < n || i >= 2*n) && v != 0xA5 {
			t.Fatalf("byte %d is outside of the run, and written to", i-n)
		}
	}
	return err
}

func TestAHostileFrameIsAnErrorAndNoMore(t *testing.T) {
	d := &decompressor{}
	defer d.close()
	for _, kind := range kinds { // the decoders' own memory
		if err := expandInto(t, d, kind, packed(kind, samplePages(2, "text"))); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range hostileFrames() {
		t.Run(name, func(t *testing.T) {
			if err := expandInto(t, d, c.kind, c.frame); err == nil {
				t.Error("accepted")
			}
			// It is the same decoder that the next run comes to.
			if err := expandInto(t, d, c.kind, packed(c.kind, samplePages(2, "text"))); err != nil {
				t.Errorf("a good frame after it: %v", err)
			}
		})
	}
}

func FuzzDecompress(f *testing.F) {
	for _, c := range hostileFrames() {
		if len(c.frame) < 1<<12 {
			f.Add(uint8(c.kind), c.frame)
		}
	}
	for _, kind := range kinds {
		f.Add(uint8(kind), packed(kind, samplePages(2, "text")))
	}
	d := &decompressor{}
	for _, kind := range kinds {
		_ = expandInto(f, d, kind, packed(kind, samplePages(2, "noise")))
	}
	f.Fuzz(func(t *testing.T, kind uint8, frame []byte) {
		_ = expandInto(t, d, kinds[int(kind)%len(kinds)], frame)
	})
}

// FuzzReadRAM reads RAM messages as a destination does.
func FuzzReadRAM(f *testing.F) {
	whole := samplePages(2, "text")
	for _, kind := range kinds {
		small := packed(kind, whole)
		f.Add(uint8(kind), uint32(2), small, crc32.Checksum(small, wire.Castagnoli), true)
	}
	f.Add(uint8(wire.KindData), uint32(2), whole, uint32(0), false)
	p, err := newPayload()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, count uint32, payload []byte, sum uint32, checksum bool) {
		run := wire.RAM{Kind: wire.Kind(kind), Count: count, Compressed: uint32(len(payload)), Summed: checksum, Sum: sum}
		r := bytes.NewReader(append(wire.AppendRAM(nil, run), payload...))
		h, err := wire.ReadHeader(r)
		if err != nil {
			return
		}
		terms := payloadTerms{compression: wire.KindZstd, checksum: sum%2 == 1}
		m, err := p.readRAM(r, h, terms)
		if err != nil {
			return
		}
		if m.Summed != terms.checksum || m.Compressed > 0 && m.Kind != terms.compression || m.Kind != run.Kind || m.Count != count {
			t.Errorf("%+v accepted, sent %+v, agreed on %+v", m, run, terms)
		}
		if m.Summed && crc32.Checksum(payload[:m.PayloadSize()], wire.Castagnoli) != sum {
			t.Errorf("%+v accepted, whose checksum is wrong", m)
		}
		if got := p.data(m); m.Kind != wire.KindZero && len(got) != int(count)*wire.PageSize {
			t.Errorf("%d bytes of %d pages", len(got), count)
		}
	})
}

// A codec that nobody knows is refused by name, on either side.
func TestAnUnknownCodecIsRefusedByName(t *testing.T) {
	_, err := NewSource(newTestMachine(t, 4096), Address{}, Options{Compress: "lz5"})
	if err == nil || !strings.Contains(err.Error(), `"lz5"`) || !strings.Contains(err.Error(), "s2") {
		t.Errorf("error %v", err)
	}
	for field, want := range map[string]string{
		`"compress":"lz5"`: `"lz5"`,
		`"teleport":true`:  `"teleport"`,
	} {
		l := &ledger{}
		r := receive(t, l, nil)
		s := newRawSource(t, r.addr)
		body := fmt.Appendf(nil, `{%s,%s`, field, config(nil)[wire.HeaderSize+1:])
		s.send(wire.Message(wire.TypeConfig, body))
		says(t, r.wait(), "migration refused", "CONFIG", want)
		failed := wire.DecodeFailed(s.next(wire.ReturnFailed))
		if failed.Code != wire.FailureRefused || !strings.Contains(failed.Text, want) {
			t.Errorf("the source is told %+v", failed)
		}
	}
}

// BenchmarkCodec is what compressing and expanding a run costs: one page, as
// most answers to faults are, and a batch.
func BenchmarkCodec(b *testing.B) {
	for _, kind := range kinds {
		c, d := newCompressor(kind), &decompressor{}
		defer d.close()
		for _, n := range []int{1, batchBytes / wire.PageSize} {
			for _, sort := range []string{"text", "noise"} {
				pages := samplePages(n, sort)
				room, got := make([]byte, c.room(len(pages))), make([]byte, len(pages))
				small := slices.Clone(c.compress(room, pages))
				b.Run(fmt.Sprintf("%v/%d/%s/compress", kind, n, sort), func(b *testing.B) {
					b.SetBytes(int64(len(pages)))
					for b.Loop() {
						c.compress(room, pages)
					}
					b.ReportMetric(float64(len(pages))/float64(len(small)), "ratio")
				})
				b.Run(fmt.Sprintf("%v/%d/%s/expand", kind, n, sort), func(b *testing.B) {
					b.SetBytes(int64(len(pages)))
					for b.Loop() {
						if err := d.decompress(kind, got, small); err != nil {
							b.Fatal(err)
						}
					}
				})
			}
		}
	}
}
