package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	hugePagesFile = "/proc/sys/vm/nr_hugepages"
	// hugePages is how many huge pages the tests want at most, at once.
	hugePages = 32
)

// reserveHugePages sees to it that tests of guest RAM on huge pages can run: as root it reserves some where there are
// none, and the function it returns gives them back. Where that fails the tests skip, and say what they lack.
func reserveHugePages() (release func()) {
	before, err := os.ReadFile(hugePagesFile)
	if err != nil {
		return func() {}
	}
	if n, err := strconv.Atoi(strings.TrimSpace(string(before))); err != nil || n >= hugePages {
		return func() {}
	}
	if err := os.WriteFile(hugePagesFile, []byte(strconv.Itoa(hugePages)), 0o644); err != nil {
		return func() {}
	}
	fmt.Printf("=== %d huge pages reserved until the tests have ended\n", hugePages)
	return func() {
		if err := os.WriteFile(hugePagesFile, before, 0o644); err != nil {
			fmt.Fprintf(os.Stderr, "test: giving the huge pages back: %v; sysctl vm.nr_hugepages=%s", err, before)
		}
	}
}
