//go:build !race

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/memslot/hugepool"
	"microvm/migration"
	"microvm/migration/tlstest"
	"microvm/migration/wire"
	"microvm/vmm"
	"microvm/vmm/doctor"
)

// readDoctor reads what doctor --format json prints, strictly.
func readDoctor(t *testing.T, text string) (doctorReport, map[string]doctor.Check) {
	t.Helper()
	var r doctorReport
	in := json.NewDecoder(strings.NewReader(text))
	in.DisallowUnknownFields()
	if err := in.Decode(&r); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	byName := map[string]doctor.Check{}
	for _, c := range r.Checks {
		if c.Name == "" || c.For == "" || c.Found == "" || !slices.Contains([]string{doctor.OK, doctor.Warning, doctor.Missing}, c.Status) {
			t.Errorf("check %+v", c)
		}
		byName[c.Name] = c
	}
	return r, byName
}

func TestDoctorFindsAHostFitThatRunsVMs(t *testing.T) {
	needKVM(t)
	h := newHost(t)
	dir := tlstest.NewCA(t).Folder()
	r, found := readDoctor(t, h.must(0, "doctor", "--tls-dir", dir, "--format", "json").stdout)
	if !r.OK || r.Peer != "" {
		t.Errorf("%+v", r)
	}
	for _, name := range []string{"kvm", "kvm capabilities", "boot", "userfaultfd", "memory", "state directory"} {
		if found[name].Status != doctor.OK {
			t.Errorf("%s: %+v, where the tests run", name, found[name])
		}
	}
	// Those of the tests are for an hour.
	if c := found["TLS, to receive"]; c.Status != doctor.Warning || !strings.Contains(c.Remedy, "renew it") {
		t.Errorf("%+v", c)
	}
	if left, err := os.ReadDir(h.root); err != nil || len(left) > 0 {
		t.Errorf("it leaves %v behind, %v", left, err)
	}
	if text := h.must(0, "doctor").stdout; !strings.Contains(text, "a VM can be booted and moved on this host") {
		t.Errorf("%s", text)
	}
}

func TestDoctorSaysWhatAUserWithoutRightsLacks(t *testing.T) {
	needKVM(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else; run this test as root")
	}
	h := newHost(t)
	// Where that user may run it.
	if err := os.Chmod(h.root, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(h.root, "microvm")
	if err := os.Link(os.Args[0], program); err != nil {
		b, err := os.ReadFile(os.Args[0])
		if err == nil {
			err = os.WriteFile(program, b, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	cmd := h.command("doctor", "--format", "json")
	cmd.Path, cmd.Dir = program, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, _ := cmd.Output()
	if cmd.ProcessState.ExitCode() != exitFailure {
		t.Errorf("status %d", cmd.ProcessState.ExitCode())
	}
	r, found := readDoctor(t, string(out))
	if r.OK {
		t.Error("it is fit")
	}
	for name, want := range map[string]string{
		"kvm": "add yourself to the group", "boot": "add yourself to the group", "userfaultfd": "/dev/userfaultfd", "state directory": vmm.StateDirEnv, "disks in .": "may write to", "tap devices": "",
	} {
		if c := found[name]; c.Status != doctor.Missing || !strings.Contains(c.Remedy, want) {
			t.Errorf("%s: %+v, want %q in the remedy", name, c, want)
		}
	}
	if c := found["kvm"]; !strings.Contains(c.Found, "group ") {
		t.Errorf("whose /dev/kvm is: %+v", c)
	}
}

// An unfitDestination is one that something stops a VM from moving to.
type unfitDestination struct {
	name, what, want string // what stops it: its name, and words
	addr             string
	flags            []string // of migrate
	anyVM            bool     // it stops any VM of this host
}

// TestWhatMakesADestinationUnfitIsNamed: processes that are unfit in one way each
// say so by its name, to doctor and to a dry run, and neither the VM nor the
// destination is the worse for it.
func TestWhatMakesADestinationUnfitIsNamed(t *testing.T) {
	h := newHost(t)
	disk, there := filepath.Join(t.TempDir(), "a.img"), filepath.Join(t.TempDir(), "there.img")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	pages := hugepool.Size(t) + 1024 // more than any test adds
	memory := fmt.Sprintf("%dM", 2*pages)
	source := h.boot("a", "work=write order=rand check=1 mem=64 beat=100", "-m", memory, "--disk", disk)
	ca := tlstest.NewCA(t)
	good, expired, foreign := ca.Folder(), ca.Folder(), tlstest.NewCA(t).Folder()

	_, tlsAddr := h.receive("--name", "expired", "--disk", disk, "--tls-dir", expired)
	ca.Server(expired, tlstest.Cert{From: -2 * time.Hour, Until: -time.Hour}) // it is read anew
	_, foreignAddr := h.receive("--name", "foreign", "--disk", disk, "--tls-dir", foreign)
	closed, closedAddr := h.receive("--name", "closed")
	closed.kill()
	_, hugeAddr := h.receive("--name", "huge", "--disk", disk, "--hugepages", "on")
	small, smallAddr := h.receive("--name", "small", "--disk", disk)
	limitMemory(t, small)
	_, fitAddr := h.receive("--name", "fit", "--disk", disk, "--max-connections", "4")
	dest, missingAddr := h.receive("--name", "b", "--disk", there)
	for _, c := range []unfitDestination{
		{"its port is closed", "reachable", "connection refused", closedAddr, nil, true},
		{"its certificate has expired", "tls", "server-cert.pem) does not count: that of", tlsAddr, []string{"--tls-dir", good}, true},
		{"another CA signed its certificate", "tls", "is not signed by the CA", foreignAddr, []string{"--tls-dir", good}, true},
		{"it wants TLS", "tls", "TLS is needed here", foreignAddr, nil, true},
		{"it has too few huge pages", "memory", fmt.Sprintf("needs %d pages of 2 MiB", pages), hugeAddr, nil, true},
		{"its memory is limited", "memory", "cannot allocate memory", smallAddr, nil, true},
		{"its processor lacks a feature", "cpu", "3dnow", withFeature(t, fitAddr), nil, true},
		{"a disk is missing", "disk", "there.img: no such file", missingAddr, nil, false},
		{"too few connections", "connections", "this side takes at most 4", fitAddr, []string{"--connections", "5"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var dry dryRunReport
			args := append([]string{"migrate", "a", c.addr, "--postcopy", "--dry-run"}, c.flags...)
			if err := json.Unmarshal([]byte(h.must(exitRefused, append(args, "--report", "json")...).stdout), &dry); err != nil {
				t.Fatal(err)
			}
			if !dry.Refused || dry.VM != "a" || dry.Destination != c.addr {
				t.Errorf("%+v", dry)
			}
			if stops := (migration.Outlook{Findings: dry.Findings}).Stops(); len(stops) != 1 || stops[0].What != c.what || !strings.Contains(stops[0].Text, c.want) {
				t.Errorf("dry run: %+v, want %s with %q", stops, c.what, c.want)
			}
			if text := h.must(exitRefused, args...).stdout; !strings.Contains(text, c.what+": ") || strings.Contains(text, "nothing known") {
				t.Errorf("as text: %s", text)
			}
			if !c.anyVM {
				return
			}
			r, found := readDoctor(t, h.must(exitRefused, append([]string{"doctor", "--peer", c.addr, "-m", memory, "--format", "json"}, c.flags...)...).stdout)
			if check := found[c.what]; r.OK || check.Status != doctor.Missing || !strings.Contains(check.Found+check.Remedy, c.want) {
				t.Errorf("doctor: %+v, want %s with %q", r, c.what, c.want)
			}
		})
	}
	if text := h.must(0, "migrate", "a", fitAddr, "--mode", "hybrid", "--dry-run").stdout; !strings.HasPrefix(text, "nothing known would stop it\n") {
		t.Errorf("to one that is fit: %s", text)
	}
	if text := h.must(0, "doctor", "--peer", fitAddr).stdout; !strings.Contains(text, "nothing known would stop a migration to "+fitAddr) {
		t.Errorf("to one that is fit: %s", text)
	}
	if state := h.state("a"); state != "running" {
		t.Errorf("the VM is %s", state)
	}
	source.goesOn(3)
	// The same destination, once it has what it lacked.
	if err := os.Link(disk, there); err != nil {
		t.Fatal(err)
	}
	h.must(0, "migrate", "a", missingAddr, "--postcopy")
	h.endsThere(source, dest, "b")
}

// limitMemory lets a process map 1 GiB more than it has.
func limitMemory(t *testing.T, p *process) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var mapped uint64
	if _, err := fmt.Sscan(string(text), &mapped); err != nil {
		t.Fatal(err)
	}
	limit := mapped*uint64(os.Getpagesize()) + 1<<30
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}, nil); err != nil {
		t.Fatal(err)
	}
}

// withFeature stands before a destination, and has every VM be one that was
// started on a processor with 3DNow!, which no processor has that KVM runs on.
func withFeature(t *testing.T, dest string) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	relay := func(c net.Conn) error {
		defer c.Close()
		d, err := net.Dial("tcp", strings.TrimPrefix(dest, "tcp:"))
		if err != nil {
			return err
		}
		defer d.Close()
		hello, err := wire.ReadHello(c)
		if err != nil {
			return err
		}
		go io.Copy(c, d)
		d.Write(hello.Append(nil))
		h, err := wire.ReadHeader(c)
		if err != nil {
			return err
		}
		body, err := wire.ReadBody(c, h)
		if err != nil {
			return err
		}
		var config, machine map[string]any
		if err := unmarshal(body, &config); err != nil {
			return err
		}
		machine = config["machine"].(map[string]any)
		for _, e := range machine["cpuid"].([]any) {
			if e := e.(map[string]any); fmt.Sprint(e["Function"]) == fmt.Sprint(0x8000_0001) {
				edx, _ := e["Edx"].(json.Number).Int64()
				e["Edx"] = edx | 1<<31
			}
		}
		if body, err = json.Marshal(config); err != nil {
			return err
		}
		d.Write(wire.Message(wire.TypeConfig, body))
		_, _ = io.Copy(io.Discard, c)
		return nil
	}
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if err := relay(c); err != nil {
					t.Error(err)
				}
			}()
		}
	}()
	return migration.ListenAddress(ln).String()
}

// unmarshal keeps large numbers as they are.
func unmarshal(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return d.Decode(v)
}
