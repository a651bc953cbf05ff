package migration

import (
	"fmt"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"microvm/migration/wire"
)

// Codec is how runs of pages are compressed.
type Codec string

const (
	// CodecNone sends pages as they are.
	CodecNone Codec = "none"
	// CodecS2 is for links of some Gbit/s: it compresses about as fast as
	// memory is copied.
	CodecS2 Codec = "s2"
	// CodecZstd is for slower links: it leaves less, for more of the CPU.
	CodecZstd Codec = "zstd"
)

// ParseCodec checks the name of a codec; "" stands for CodecNone.
func ParseCodec(name string) (Codec, error) {
	switch c := Codec(name); c {
	case "":
		return CodecNone, nil
	case CodecNone, CodecS2, CodecZstd:
		return c, nil
	}
	return "", fmt.Errorf("pages cannot be compressed by %q: has to be %s, %s or %s", name, CodecNone, CodecS2, CodecZstd)
}

// wireName is what CONFIG calls c.
func (c Codec) wireName() string {
	if c == CodecNone {
		return ""
	}
	return string(c)
}

// maxWindow is how far back a zstd frame may refer, in bytes: no further than
// a run is long.
const maxWindow = wire.MaxRunPages * wire.PageSize

// compressor compresses runs. It is not for several goroutines at once.
type compressor struct {
	kind wire.Kind
	zstd *zstd.Encoder // of KindZstd
}

func newCompressor(kind wire.Kind) *compressor {
	c := &compressor{kind: kind}
	if kind == wire.KindZstd {
		// Without a reader it has no goroutines, and these options none
		// that could be wrong. What is damaged on the way is for
		// Options.Checksum to find, after every kind of payload.
		c.zstd, _ = zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithEncoderCRC(false), zstd.WithWindowSize(maxWindow), zstd.WithLowerEncoderMem(true))
	}
	return c
}

// room is how long what append appends for n bytes can be.
func (c *compressor) room(n int) int {
	if c.kind == wire.KindZstd {
		return c.zstd.MaxEncodedSize(n)
	}
	return s2.MaxEncodedLen(n)
}

// compress writes src to the start of dst, which has room for it, and gives
// what it has written. src must not change meanwhile: a later part of the run
// is written as a reference to an earlier one.
func (c *compressor) compress(dst, src []byte) []byte {
	if c.kind == wire.KindZstd {
		return c.zstd.EncodeAll(src, dst[:0])
	}
	return s2.Encode(dst, src)
}

// decompressor undoes compression. It is not for several goroutines at once.
type decompressor struct {
	zstd *zstd.Decoder // made when it is first needed
}

// decompress fills dst, all of it, from src. It writes to no memory but dst,
// whatever src says, and takes no more than the decoder's own, which is bounded
// by a run.
func (d *decompressor) decompress(kind wire.Kind, dst, src []byte) error {
	if kind == wire.KindZstd {
		return d.unzstd(dst, src)
	}
	n, err := s2.DecodedLen(src)
	if err != nil {
		return err
	}
	if n != len(dst) {
		return fmt.Errorf("it expands to %d bytes, not %d", n, len(dst))
	}
	_, err = s2.Decode(dst, src)
	return err
}

func (d *decompressor) unzstd(dst, src []byte) error {
	if d.zstd == nil {
		var err error
		d.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow),
			zstd.WithDecoderMaxMemory(maxWindow), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			return err
		}
	}
	out, err := d.zstd.DecodeAll(src, dst[:0:len(dst)])
	switch {
	case err != nil:
		return err
	case len(out) != len(dst):
		return fmt.Errorf("it expands to %d bytes, not %d", len(out), len(dst))
	}
	return nil
}

// close ends what the decoder may have running.
func (d *decompressor) close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
}
