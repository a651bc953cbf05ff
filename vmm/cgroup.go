package vmm

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// cgroupRoot is where cgroup file systems are mounted.
const cgroupRoot = "/sys/fs/cgroup"

// groupMemory finds, of the memory cgroups that this process is in, the one that
// lets it take least, and how many bytes those are; group "" is without a limit.
// A guest that takes more would be killed, and it would be killed where it has
// just arrived. root is cgroupRoot, cgroups the form of /proc/self/cgroup.
func groupMemory(root string, cgroups []byte) (left uint64, group string) {
	for s := bufio.NewScanner(bytes.NewReader(cgroups)); s.Scan(); {
		_, rest, _ := strings.Cut(s.Text(), ":")
		controllers, path, ok := strings.Cut(rest, ":")
		if !ok || !filepath.IsAbs(path) {
			continue
		}
		var f groupFiles
		switch {
		case controllers == "":
			f = groupFiles{root, "memory.max", "memory.current", "inactive_file"}
		case strings.Contains(","+controllers+",", ",memory,"):
			f = groupFiles{filepath.Join(root, "memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"}
		default:
			continue
		}
		// A limit of a group is one of all below it.
		for path = filepath.Clean(path); ; path = filepath.Dir(path) {
			if n, ok := f.left(path); ok && (group == "" || n < left) {
				left, group = n, path
			}
			if path == "/" {
				break
			}
		}
	}
	return left, group
}

// groupFiles are the files of a memory cgroup, of version 2 or 1.
type groupFiles struct{ root, limit, usage, cache string }

// left is how many bytes a group's processes may still take, if it has a limit.
// What it caches of files that nobody uses counts as free, as in MemAvailable.
func (f groupFiles) left(path string) (bytes uint64, limited bool) {
	read := func(name string) (uint64, bool) {
		text, err := os.ReadFile(filepath.Join(f.root, path, name))
		n, parseErr := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
		return n, err == nil && parseErr == nil
	}
	limit, ok := read(f.limit) // no number is "max"
	const none = 1 << 62       // version 1 says so by a number about as large as there is
	if !ok || limit >= none {
		return 0, false
	}
	usage, ok := read(f.usage)
	if !ok {
		return 0, false
	}
	stat, _ := os.ReadFile(filepath.Join(f.root, path, "memory.stat"))
	for line := range strings.Lines(string(stat)) {
		if text, ok := strings.CutPrefix(line, f.cache+" "); ok {
			cache, _ := strconv.ParseUint(strings.TrimSpace(text), 10, 64) // 0 is on the safe side
			usage -= min(usage, cache)
		}
	}
	return limit - min(limit, usage), true
}
