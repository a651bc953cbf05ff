package guest

import (
	"fmt"
	"strings"
)

// cmdlineMaxPVH bounds a PVH guest's command line. The PVH ABI sets no bound;
// this is what Linux keeps (COMMAND_LINE_SIZE 2048 with the NUL), and it cuts
// the rest off without a word.
const cmdlineMaxPVH = 2047

// cmdlineBytes is the command line as guest memory holds it, NUL-terminated.
//
// Errors: longer than the kernel takes, or a NUL byte inside.
func cmdlineBytes(s string, k *kernel) ([]byte, error) {
	limit := min(k.cmdlineMax, cmdlineArea-1)
	if len(s) > limit {
		return nil, fmt.Errorf("kernel command line: %d bytes, this %s takes at most %d", len(s), k.format, limit)
	}
	if i := strings.IndexByte(s, 0); i >= 0 {
		return nil, fmt.Errorf("kernel command line: NUL byte at offset %d", i)
	}
	return append([]byte(s), 0), nil
}
