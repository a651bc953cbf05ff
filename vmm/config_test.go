package vmm

import (
	"strings"
	"testing"
)

func TestConfigIsChecked(t *testing.T) {
	good := Config{Name: "a", CPUs: 1, Memory: 256 << 20}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string
	}{
		{"no name", func(c *Config) { c.Name = "" }, "empty"},
		{"path as a name", func(c *Config) { c.Name = "a/b" }, `"a/b"`},
		{"dots as a name", func(c *Config) { c.Name = ".." }, `".."`},
		{"long name", func(c *Config) { c.Name = strings.Repeat("x", 49) }, "49 characters"},
		{"no vCPU", func(c *Config) { c.CPUs = 0 }, "0 vCPUs"},
		{"too many vCPUs", func(c *Config) { c.CPUs = 33 }, "1 to 32"},
		{"too little memory", func(c *Config) { c.Memory = 64 << 20 }, "64 MiB"},
		{"too much memory", func(c *Config) { c.Memory = 65 << 30 }, "64 GiB"},
		{"odd memory", func(c *Config) { c.Memory++ }, "multiple"},
		{"half a huge page", func(c *Config) { c.Memory, c.Hugepages = 129<<20, true }, "huge page"},
		{"initrd alone", func(c *Config) { c.Initrd = "initrd.gz" }, "initrd.gz"},
		{"console", func(c *Config) { c.Console = "tty" }, `"tty"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			config := good
			c.change(&config)
			if err := config.Validate(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant %q in it", err, c.want)
			}
		})
	}
}

func TestMemAvailable(t *testing.T) {
	got, err := memAvailable([]byte("MemTotal:       24684084 kB\nMemAvailable:   24399180 kB\nBuffers: 1 kB\n"))
	if err != nil || got != 24399180<<10 {
		t.Errorf("got %d, %v", got, err)
	}
	for _, bad := range []string{"", "MemAvailable: many kB\n", "MemAvailable: 99999999999999999999 kB"} {
		if got, err := memAvailable([]byte(bad)); err == nil {
			t.Errorf("%q gives %d", bad, got)
		}
	}
	if err := checkMemory(1<<62, false); err == nil {
		t.Error("this host is said to have 4 EiB of memory")
	}
}
