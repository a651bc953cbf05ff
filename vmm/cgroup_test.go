package vmm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAMemoryCgroupBoundsWhatAGuestCanHave(t *testing.T) {
	root := t.TempDir()
	for path, text := range map[string]string{
		"vms.slice/memory.max":         "max\n",
		"vms.slice/memory.current":     "1000\n",
		"vms.slice/a/memory.max":       "5000\n",
		"vms.slice/a/memory.current":   "3000\n",
		"vms.slice/a/memory.stat":      "anon 2500\ninactive_file 500\n",
		"vms.slice/a/b/memory.max":     "9000\n",
		"vms.slice/a/b/memory.current": "100\n",
		"full/memory.max":              "10\n",
		"full/memory.current":          "11\n",

		"memory/memory.limit_in_bytes":   "9223372036854771712\n",
		"memory/memory.usage_in_bytes":   "7\n",
		"memory/c/memory.limit_in_bytes": "4096\n",
		"memory/c/memory.usage_in_bytes": "1096\n",
		"memory/c/memory.stat":           "inactive_file 1\ntotal_inactive_file 96\n",
	} {
		file := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for cgroups, want := range map[string]struct {
		left  uint64
		group string
	}{
		"0::/vms.slice/a/b\n": {2500, "/vms.slice/a"}, // its parent has less
		"0::/vms.slice\n":     {},
		"0::/full\n":          {0, "/full"},
		"0::/elsewhere\n":     {},
		"4:cpu,cpuacct:/c\n3:cpuset,memory:/c\n0::/vms.slice\n": {3096, "/c"},
		"3:memory:/\n":           {},
		"3:memory:../c\nrubbish": {},
	} {
		if left, group := groupMemory(root, []byte(cgroups)); left != want.left || group != want.group {
			t.Errorf("%q: %d bytes, by %q; want %d by %q", cgroups, left, group, want.left, want.group)
		}
	}
}
