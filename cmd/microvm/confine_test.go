package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// threadStatuses are fields of /proc/PID/task/*/status.
func threadStatuses(t *testing.T, pid int) (all []map[string]string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		all = append(all, fields)
	}
	if len(all) < 4 {
		t.Fatalf("process %d has %d threads", pid, len(all))
	}
	return all
}

// expectThreads compares the fields of every thread.
func expectThreads(t *testing.T, pid int, want map[string]string) {
	t.Helper()
	for _, s := range threadStatuses(t, pid) {
		for name, value := range want {
			if s[name] != value {
				t.Errorf("process %d, thread %s: %s is %q, want %q", pid, s["Pid"], name, s[name], value)
			}
		}
	}
}

// newJail makes a directory for --jail.
func (h *host) newJail() string {
	h.t.Helper()
	jail := filepath.Join(h.root, "jail")
	if err := os.Mkdir(jail, 0o755); err != nil {
		h.t.Fatal(err)
	}
	return jail
}

// expectJailed checks that a process is in a jail, as user and group 65534.
func expectJailed(t *testing.T, pid int, jail string) {
	t.Helper()
	const nobody = "65534\t65534\t65534\t65534"
	expectThreads(t, pid, map[string]string{"Uid": nobody, "Gid": nobody, "Groups": ""})
	if root, err := os.Readlink(fmt.Sprintf("/proc/%d/root", pid)); err != nil || root != jail {
		t.Errorf("its root is %q, %v", root, err)
	}
}

// A VM's process has given up what it does not need: one that boots a guest before
// that runs, one that takes a guest in before it hears of one, and the rest then.
// One of them goes to jail besides, and its guest moves from there.
func TestAVMsProcessKeepsOnlyWhatItNeeds(t *testing.T) {
	needKVM(t)
	if os.Geteuid() != 0 {
		t.Skip("there is little to give up; run this test as root")
	}
	h := newHost(t)
	jail := h.newJail()
	source := h.boot("a", "beat=50", "--jail", jail+",uid=65534,gid=65534")
	nothing := map[string]string{"NoNewPrivs": "1", "Seccomp": "2", "CapPrm": "0000000000000000", "CapEff": "0000000000000000"}
	expectThreads(t, source.cmd.Process.Pid, nothing)
	expectJailed(t, source.cmd.Process.Pid, jail)
	dest, addr := h.receive("--name", "b")
	expectThreads(t, dest.cmd.Process.Pid, map[string]string{"NoNewPrivs": "1", "Seccomp": "2"})
	h.migrate("a", addr)
	// Its threads that the guest waits for go before others.
	var nice unix.Rlimit
	if err := unix.Prlimit(dest.cmd.Process.Pid, unix.RLIMIT_NICE, nil, &nice); err != nil {
		t.Fatal(err)
	}
	if nice.Cur == 0 {
		nothing["CapPrm"] = fmt.Sprintf("%016x", 1<<unix.CAP_SYS_NICE)
		nothing["CapEff"] = nothing["CapPrm"]
	}
	expectThreads(t, dest.cmd.Process.Pid, nothing)
	info, err := h.inspect("b")
	if err != nil {
		t.Fatal(err)
	}
	if c := info.Confinement; c == nil || c.Seccomp != "kill" || c.Landlock == 0 && c.NoLandlock == "" {
		t.Errorf("inspect says of it: %+v", c)
	}
}

// newControlGroup names a control group of version 2 that is not there yet; it goes
// away with the test.
func newControlGroup(t *testing.T) string {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for mount := range strings.Lines(string(mounts)) {
		// Device, place, type, options.
		if f := strings.Fields(mount); len(f) > 3 && f[2] == "cgroup2" && strings.HasPrefix(f[3], "rw") {
			group := filepath.Join(f[1], fmt.Sprintf("microvm-test-%d", os.Getpid()))
			t.Cleanup(func() {
				askUntil(t, patience, func() (bool, string) {
					err := os.Remove(group) // busy until the last process in it is gone
					return err == nil || errors.Is(err, fs.ErrNotExist), fmt.Sprint(err)
				})
			})
			return group
		}
	}
	t.Skip("no control groups of version 2 to write to; mount -t cgroup2 none /sys/fs/cgroup")
	return ""
}

// A VM is received in a jail and in a control group, and goes on from there to
// another process.
func TestAVMIsReceivedInAJail(t *testing.T) {
	needKVM(t)
	if os.Geteuid() != 0 {
		t.Skip("a jail takes root; run this test as root")
	}
	h := newHost(t)
	group, jail := newControlGroup(t), h.newJail()
	h.boot("a", "work=write order=rand check=1 mem=16 beat=50")
	jailed, addr := h.receive("--name", "b", "--jail", jail+",uid=65534,gid=65534,cgroup="+group)
	h.migrate("a", addr)
	jailed.goesOn(3)
	pid := jailed.cmd.Process.Pid
	expectThreads(t, pid, map[string]string{"NoNewPrivs": "1", "Seccomp": "2"})
	expectJailed(t, pid, jail)
	members, err := os.ReadFile(filepath.Join(group, "cgroup.procs"))
	if err != nil || strings.TrimSpace(string(members)) != fmt.Sprint(pid) {
		t.Errorf("in its control group are %q, %v, want %d", members, err, pid)
	}
	last, addr := h.receive("--name", "c")
	h.migrate("b", addr)
	jailed.wait(0)
	last.goesOn(3)
}

// ordinaryUser has root make what an ordinary user has been given access to, in
// namespaces of its own, and goes on as that user.
const ordinaryUser = `
set -e
mkdir "$D/dev"; mount -t tmpfs none "$D/dev"
for d in kvm userfaultfd net/tun; do
	mkdir -p "$D/dev/$(dirname $d)"
	mknod -m 666 "$D/dev/$d" c 10 $((0x$(stat -c %T /dev/$d)))
	mount --bind "$D/dev/$d" "/dev/$d"
done
ip tuntap add dev tap7 mode tap user 65534; ip link set tap7 up
chown 65534 "$D/state"
cd /
exec setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all sh -e -c '
	"$MICROVM" run --name net --net tap=tap7 -m 128M -p "beat=20 stop=2" --console stdio
	"$MICROVM" demo -m 128M -c 1
'`

// Whoever may open /dev/kvm and /dev/userfaultfd, and has a tap, is no less than
// root.
func TestAnOrdinaryUserRunsAndMovesAVM(t *testing.T) {
	needKVM(t)
	if os.Geteuid() != 0 {
		t.Skip("to become another user takes root; run this test as root")
	}
	h := newHost(t)
	if err := os.Chmod(h.root, 0o755); err != nil {
		t.Fatal(err)
	}
	state := filepath.Join(h.root, "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(h.root, "microvm") // its own may be in a folder that is root's
	if err := os.WriteFile(binary, program, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", ordinaryUser)
	cmd.Env = append(os.Environ(), beMicrovm+"=1", "D="+h.root, "MICROVM="+binary, "MICROVM_STATE_DIR="+state, "TMPDIR="+state)
	cmd.WaitDelay = patience
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if s := out.String(); !strings.Contains(s, "end\r\n") || !strings.Contains(s, "verified   true") {
		t.Errorf("%s", s)
	}
}
