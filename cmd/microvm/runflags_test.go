package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"microvm/vmm"
)

// printConfig runs microvm run --print-config with more arguments.
func printConfig(t *testing.T, args ...string) vmm.Config {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if status := dispatch(t.Context(), append([]string{"run", "--print-config"}, args...), &stdout, &stderr); status != exitDone {
		t.Fatalf("%q: status %d: %s", args, status, &stderr)
	}
	var c vmm.Config
	if err := json.Unmarshal(stdout.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// everyFlag is a command line with every flag that is part of a VM.
var everyFlag = []string{
	"-k", "/boot/vmlinuz", "-i", "/boot/initrd", "-p", "console=ttyS0", "-c", "3", "-m", "1G", "--name", "a", "--console", "off", "--hugepages",
	"--disk", "/srv/root.img,serial=x,queues=2", "--disk", "/srv/data.img,ro", "--net", "tap=auto,bridge=br0,mtu=9000", "--net", "tap=tap7,mac=02:00:00:00:00:07,queues=2",
	"--virtio-console", "--vsock", "cid=7,path=/run/v.sock", "--balloon", "64M,deflate-on-oom", "--rng",
}

// A VM whose config was printed is the same VM when it is run from that.
func TestAConfigThatWasPrintedIsTheSameVM(t *testing.T) {
	want := printConfig(t, everyFlag...)
	for i, field := range reflect.VisibleFields(reflect.TypeOf(want)) {
		if reflect.ValueOf(want).Field(i).IsZero() {
			t.Errorf("%s is not in it: is there a flag for it here?", field.Name)
		}
	}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "a.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := printConfig(t, "--config", file); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v\nwant %+v", got, want)
	}
	if c := printConfig(t); c.Name != "" || c.Console != "" {
		t.Errorf("%+v: what nobody has said goes for every VM that is run from it", c)
	}
	got := printConfig(t, "--config", file, "-c", "1", "--disk", "/srv/other.img")
	want.CPUs, want.Disks = 1, []vmm.DiskConfig{{Path: "/srv/other.img"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("with flags before the file's: %+v\nwant %+v", got, want)
	}
}

// A flag that is in no config would be lost where a VM is run from a file.
func TestEachFlagOfRunIsInTheConfig(t *testing.T) {
	outside := map[string]bool{"detach": true, "config": true, "print-config": true, "tls-dir": true}
	// Nor is what is this host's affair, and would go along when the VM moves.
	here := pflag.NewFlagSet("", pflag.ContinueOnError)
	addSessionFlags(here)
	here.VisitAll(func(f *pflag.Flag) { outside[f.Name] = true })
	flags, _ := runCommand.flagSet()
	flags.VisitAll(func(f *pflag.Flag) {
		if ofConfig[f.Name] == nil != outside[f.Name] {
			t.Errorf("--%s: part of the config %v", f.Name, ofConfig[f.Name] != nil)
		}
	})
}

func TestAConfigFileIsChecked(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{`{"cpus": 2, "memry": 5}`, `line 1, column 13: there is no "memry"`},
		{"{\n  \"disks\": [\n    {\"path\": \"a\"},\n    {\"path\": \"b\", \"raed_only\": true}\n  ]\n}", `line 4, column 19: there is no "disks[1].raed_only"`},
		{`{"balloon": {"siez": 1}}`, `there is no "balloon.siez"`},
		{"{\n\"cpus\": \"two\"}", `line 2, column 14: "cpus" is a string`},
		{"{\n\n", "line 3, column 1: the JSON ends too early"},
		{"{\"cpus\": 1,,}", "line 1, column 13"},
		{`{} {}`, "something follows"},
		{`{"cpus": 0}`, "0 vCPUs"},
		{strings.Repeat(" ", 1<<20) + "{}", "more than 1048576 bytes"},
	} {
		file := filepath.Join(t.TempDir(), "a.json")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		var stdout, stderr bytes.Buffer
		status := dispatch(t.Context(), []string{"run", "--config", file}, &stdout, &stderr)
		if status != exitUsage || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("%.40q: status %d, %s\nwant %s", c.text, status, &stderr, c.want)
		}
	}
}
