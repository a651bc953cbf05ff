package main

import (
	"fmt"
	"strconv"
	"strings"
)

// size is a number of bytes on a command line: 268435456, 262144K, 256M, 4G.
// A B or iB may follow the letter; a unit is always a power of 1024.
type size uint64

var sizeUnits = []struct {
	letter string
	shift  uint
}{{"T", 40}, {"G", 30}, {"M", 20}, {"K", 10}}

func (s *size) String() string {
	for _, u := range sizeUnits {
		if v := uint64(*s); v != 0 && v%(1<<u.shift) == 0 {
			return strconv.FormatUint(v>>u.shift, 10) + u.letter
		}
	}
	return strconv.FormatUint(uint64(*s), 10)
}

// Set reads a size; it is a pflag.Value.
func (s *size) Set(text string) error {
	number := strings.ToUpper(text)
	number = strings.TrimSuffix(strings.TrimSuffix(number, "B"), "I")
	var shift uint
	for _, u := range sizeUnits {
		if rest, ok := strings.CutSuffix(number, u.letter); ok {
			number, shift = rest, u.shift
			break
		}
	}
	n, err := strconv.ParseUint(number, 10, 64-int(shift))
	if err != nil {
		return fmt.Errorf("%q is not a size such as 512M or 4G", text)
	}
	*s = size(n << shift)
	return nil
}

// Type is what help calls the value.
func (*size) Type() string { return "size" }
