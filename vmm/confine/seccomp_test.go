package confine

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// strangers are system calls that a VM's process never makes, as whoever has
// taken one over would.
var strangers = map[string]func(){
	"execve":                 func() { _ = unix.Exec("/bin/true", []string{"true"}, nil) },
	"fork":                   func() { call(unix.SYS_FORK) },
	"clone of a process":     func() { call(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) },
	"clone into a namespace": func() { call(unix.SYS_CLONE, cloneThread|unix.CLONE_NEWUSER) },
	"ptrace":                 func() { _ = unix.PtraceAttach(os.Getppid()) },
	"process_vm_readv":       func() { call(unix.SYS_PROCESS_VM_READV, uintptr(os.Getppid())) },
	"kill of another":        func() { _ = unix.Kill(os.Getppid(), 0) },
	"mount":                  func() { _ = unix.Mount("none", "/mnt", "tmpfs", 0, "") },
	"unshare":                func() { _ = unix.Unshare(unix.CLONE_NEWUSER) },
	"bpf":                    func() { call(unix.SYS_BPF) },
	"keyctl":                 func() { call(unix.SYS_KEYCTL) },
	"open_by_handle_at":      func() { call(unix.SYS_OPEN_BY_HANDLE_AT) },
	"a packet socket":        func() { _, _ = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, 0) },
	"multipath TCP":          func() { _, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP) },
	"another netlink socket": func() { _, _ = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_AUDIT) },
	"TIOCSTI":                func() { call(unix.SYS_IOCTL, 0, unix.TIOCSTI, 0) },
	"F_SETOWN":               func() { call(unix.SYS_FCNTL, 0, unix.F_SETOWN, uintptr(os.Getppid())) },
	"seccomp":                func() { call(unix.SYS_SECCOMP, 0, 0, 0) },
	"chroot":                 func() { _ = unix.Chroot("/") },
	"setresuid":              func() { call(unix.SYS_SETRESUID, 0, 0, 0) },
	"an x32 call":            func() { call(0x40000000 | unix.SYS_GETPID) },
}

// inGo are those that only a build without cgo forbids, as what is shipped is.
var inGo = map[string]func(){
	"memory to execute": func() {
		_, _ = unix.Mmap(-1, 0, 4096, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	},
	"prctl": func() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0) },
}

func call(nr uintptr, args ...uintptr) {
	args = append(args, make([]uintptr, 6)...)
	_, _, _ = unix.RawSyscall6(nr, args[0], args[1], args[2], args[3], args[4], args[5])
}

const strangerEnv = "MICROVM_CONFINE_STRANGER"

func init() {
	if len(ofBuild()) == 0 {
		for name, do := range inGo {
			strangers[name] = do
		}
	}
	cases["stranger"] = func() (any, error) {
		if _, err := Apply(Options{Seccomp: SeccompKill}); err != nil {
			return nil, err
		}
		strangers[os.Getenv(strangerEnv)]()
		return "alive", nil
	}
	cases["logged"] = func() (any, error) {
		if _, err := Apply(Options{Seccomp: SeccompLog}); err != nil {
			return nil, err
		}
		return unix.Getpriority(unix.PRIO_PROCESS, 0)
	}
	cases["asked"] = ask
}

func TestACallThatThisProgramNeverMakesKillsTheProcess(t *testing.T) {
	for name := range strangers {
		t.Run(name, func(t *testing.T) {
			if signal := start(t, "stranger", nil, strangerEnv+"="+name); signal != unix.SIGSYS {
				t.Errorf("%v, want SIGSYS", signal)
			}
		})
	}
}

func TestACallThatIsLoggedIsMade(t *testing.T) {
	var priority int
	start(t, "logged", &priority)
	if priority < 1 || priority > 40 {
		t.Errorf("getpriority: %d", priority)
	}
}

// An answer is of the kernel, about a call.
type answer struct {
	NR, Arg1 uint32
	Allowed  bool
}

// refusal is what the filter of ask answers, which no system call does.
const refusal = syscall.Errno(3999)

// ask has the kernel itself say what the filter allows. Every call is made with
// arguments that mean nothing; but those that are allowed whatever the arguments
// are not made.
func ask() (any, error) {
	rules := allowList(false)
	if err := install(build(rules, unix.SECCOMP_RET_ERRNO|uint32(refusal))); err != nil {
		return nil, err
	}
	var answers []answer
	asked := func(nr, arg1 uint32) {
		none := ^uintptr(0)
		_, _, errno := unix.RawSyscall6(uintptr(nr), none, uintptr(arg1), none, none, none, none)
		answers = append(answers, answer{nr, arg1, errno != refusal})
	}
	for nr := range uint32(1024) {
		// The kernel's own ends of probes, which filters do not see (Linux 6.14)
		// and nobody else can call.
		const uretprobe, uprobe = 335, 336
		if nr == uretprobe || nr == uprobe {
			continue
		}
		if i := slices.IndexFunc(rules, func(r rule) bool { return r.nr == nr }); i < 0 || len(rules[i].when) > 0 {
			asked(nr, 0)
		}
	}
	asked(1<<31, 0)
	list := requests()
	random := rand.New(rand.NewPCG(1, 2))
	for _, request := range list {
		asked(unix.SYS_IOCTL, request)
		for bit := range 32 {
			asked(unix.SYS_IOCTL, request^1<<bit)
		}
	}
	for range 10000 {
		asked(unix.SYS_IOCTL, random.Uint32())
	}
	return answers, nil
}

// The kernel agrees with the list on every number and on ioctls' requests, a bit
// away from one that is allowed included.
func TestTheFilterIsTheList(t *testing.T) {
	var answers []answer
	start(t, "asked", &answers)
	if len(answers) < 10000 {
		t.Fatalf("%d answers", len(answers))
	}
	list := requests()
	for _, a := range answers {
		if want := a.NR == unix.SYS_IOCTL && slices.Contains(list, a.Arg1); a.Allowed != want {
			// Not one of the others allows an argument of all ones.
			t.Errorf("call %d with %#x: allowed is %v", a.NR, a.Arg1, a.Allowed)
		}
	}
}

// A vCPU's exit and a page put in place cost a handful of comparisons.
func TestWhatAGuestWaitsForIsFoundFirst(t *testing.T) {
	program := build(allowList(false), unix.SECCOMP_RET_KILL_PROCESS)
	for _, request := range requests()[:hotRequests] {
		if n := steps(t, program, unix.SYS_IOCTL, request); n > 10 {
			t.Errorf("ioctl %#x: %d instructions", request, n)
		}
	}
	longest := 0
	for _, request := range requests() {
		longest = max(longest, steps(t, program, unix.SYS_IOCTL, request))
	}
	if longest > 30 {
		t.Errorf("an ioctl takes up to %d instructions", longest)
	}
}

// steps runs a program as the kernel would, and counts. What it returns has to be
// leave to make the call.
func steps(t *testing.T, program code, nr, arg1 uint32) int {
	t.Helper()
	var a uint32
	for at, n := 0, 1; ; at, n = at+1, n+1 {
		switch in := program[at]; in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = map[uint32]uint32{offNR: nr, offArch: unix.AUDIT_ARCH_X86_64, offArgs + 8: arg1}[in.K]
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			greater := in.Code == unix.BPF_JMP|unix.BPF_JGE|unix.BPF_K && a > in.K
			if a == in.K || greater {
				at += int(in.Jt)
			} else {
				at += int(in.Jf)
			}
		case unix.BPF_JMP | unix.BPF_JA:
			at += int(in.K)
		case unix.BPF_RET | unix.BPF_K:
			if in.K != unix.SECCOMP_RET_ALLOW {
				t.Errorf("call %d with %#x: %#x", nr, arg1, in.K)
			}
			return n
		default:
			t.Fatalf("instruction %d: code %#x", at, in.Code)
		}
	}
}

// Every thread has given up everything, also one that is made later.
func TestEveryThreadIsConfined(t *testing.T) {
	needRoot(t)
	var statuses []map[string]string
	start(t, "threads", &statuses)
	if len(statuses) < 10 {
		t.Fatalf("%d threads", len(statuses))
	}
	// The right to go before others stays where no limit can stand for it.
	left := strings.Repeat("0", 16)
	had, err := held()
	if err != nil {
		t.Fatal(err)
	}
	if had.effective&Capabilities(unix.CAP_SYS_RESOURCE) == 0 {
		left = fmt.Sprintf("%016x", had.effective&Capabilities(unix.CAP_SYS_NICE))
	}
	for _, s := range statuses {
		for name, want := range map[string]string{
			"NoNewPrivs": "1", "Seccomp": "2", "CapPrm": left, "CapEff": left, "CapAmb": strings.Repeat("0", 16),
		} {
			if s[name] != want {
				t.Errorf("thread %s: %s is %s, want %s", s["Pid"], name, s[name], want)
			}
		}
	}
}

func init() {
	cases["threads"] = func() (any, error) {
		defer threads(8)()
		if _, err := Apply(Options{Seccomp: SeccompKill, Landlock: true, Grants: []Grant{{"/proc", Read}}}); err != nil {
			return nil, err
		}
		defer threads(2)()
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 20-urgentNice); err != nil {
			return nil, fmt.Errorf("a thread that guests wait for cannot go before others: %w", err)
		}
		return taskStatuses()
	}
}

// taskStatuses are the fields of /proc/self/task/*/status.
func taskStatuses() ([]map[string]string, error) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	var all []map[string]string
	for _, task := range tasks {
		text, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%s/status", task.Name()))
		if err != nil {
			return nil, err
		}
		fields := make(map[string]string)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(line, ":")
			fields[name] = strings.TrimSpace(value)
		}
		all = append(all, fields)
	}
	return all, nil
}
