package tiny

import _ "embed"

//go:embed tiny.elf
var kernel []byte

// Kernel returns the tiny kernel, a PVH ELF64 of a few KiB that loads at 1 MiB. The bytes are shared: callers must not
// change them.
func Kernel() []byte { return kernel }
