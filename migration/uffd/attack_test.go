package uffd_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"microvm/kvm"
	"microvm/memslot"
	"microvm/migration/uffd"

	"golang.org/x/sys/unix"
)

// The attack on invariant 1, "Go code never touches a guest page that may be
// missing": devices read and write RAM that is still arriving while the garbage
// collector stops the world again and again. It runs in a child process, since
// what it looks for is a hang of the whole process, which no timer of its own
// survives.
//
// How it fails: a goroutine that touches an absent page by itself sleeps in the
// page fault, outside any system call. If a collection begins before the page
// is there, it waits for that goroutine to stop, and the goroutine that would
// bring the page waits for the collection: nothing moves any more, no line comes
// from the child, and the parent says so. If the collection happens to come
// later, the userfaultfd's reader gets an event, which in this test can only be
// Go code's doing, and the child says so. TestAttackFindsADirectTouch makes the
// mistake on purpose.
const (
	attackRounds = 1000
	attackPages  = 32
	attackProcs  = 8 // goroutines that play devices

	childVariable = "UFFD_TEST_ATTACK"
)

func TestMain(m *testing.M) {
	mode, procs, child := strings.Cut(os.Getenv(childVariable), "/")
	if !child {
		os.Exit(m.Run())
	}
	n, _ := strconv.Atoi(procs)
	runtime.GOMAXPROCS(n)
	fmt.Println("begun")
	collections, err := attack(mode == "direct")
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Printf("passed with %d collections\n", collections)
}

func TestGuestRAMArrivesUnderGarbageCollection(t *testing.T) {
	for _, procs := range []int{1, 2} {
		t.Run(fmt.Sprintf("GOMAXPROCS=%d", procs), func(t *testing.T) {
			if last := runChild(t, "accessors", procs, time.Minute); !strings.HasPrefix(last, "passed") {
				t.Errorf("the child's last words: %q", last)
			} else {
				t.Log(last)
			}
		})
	}
}

func TestAttackFindsADirectTouch(t *testing.T) {
	for _, procs := range []int{1, 2} {
		last := runChild(t, "direct", procs, 3*time.Second)
		t.Logf("GOMAXPROCS=%d: the child's last words: %q", procs, last)
		if strings.HasPrefix(last, "passed") {
			t.Errorf("GOMAXPROCS=%d: goroutines touched absent pages for %d rounds and it was not noticed", procs, attackRounds)
		}
	}
}

// runChild runs the attack and returns its last line, or that it hung: that it
// had begun, and then no line came for as long as patience.
func runChild(t *testing.T, mode string, procs int, patience time.Duration) string {
	t.Helper()
	if u, err := uffd.Open(); err != nil {
		t.Skip(err)
	} else {
		u.Close()
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s/%d", childVariable, mode, procs))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	hung := new(atomic.Bool)
	watchdog := time.AfterFunc(time.Minute, func() {
		hung.Store(true)
		cmd.Process.Kill()
	})
	defer watchdog.Stop()
	var last string
	for lines := bufio.NewScanner(out); lines.Scan(); watchdog.Reset(patience) {
		last = lines.Text()
	}
	if hung.Load() {
		return "hung after: " + last
	}
	return last
}

// machine is as much of a VM as the attack needs.
type machine struct {
	u      *uffd.UFFD
	block  *memslot.Block
	memory *memslot.Memory
	// mapping is for the mistake.
	mapping []byte
	direct  bool

	asked chan uint64
	// round is the contents of each page's first byte.
	round atomic.Uint32
	err   atomic.Pointer[error]
	// collected says that a garbage collection has ended, if somebody
	// listens.
	collected chan struct{}
}

func (m *machine) SetUserMemoryRegion(kvm.MemoryRegion) error { return nil }

func (m *machine) fail(err error) { m.err.CompareAndSwap(nil, &err) }

func newMachine(direct bool) (*machine, error) {
	m := &machine{direct: direct, asked: make(chan uint64, attackPages), collected: make(chan struct{})}
	var err error
	if m.u, err = uffd.Open(); err != nil {
		return nil, err
	}
	if m.block, err = memslot.NewBlock("ram", attackPages*uint64(os.Getpagesize()), memslot.BlockOptions{}); err != nil {
		return nil, err
	}
	if m.mapping, err = m.block.View(0, m.block.Size()); err != nil {
		return nil, err
	}
	m.memory = memslot.NewMemory(m, 8)
	if err := m.memory.Map(0, 0, m.block, 0, m.block.Size(), 0); err != nil {
		return nil, err
	}
	return m, m.u.Register(m.block.Addr(), m.block.Size())
}

func attack(direct bool) (collections int, err error) {
	m, err := newMachine(direct)
	if err != nil {
		return 0, err
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	wg.Go(m.page)
	wg.Go(m.watch)
	wg.Go(func() {
		for !stop.Load() {
			runtime.GC()
			collections++
			select {
			case m.collected <- struct{}{}:
			default:
			}
		}
	})
	for round := range attackRounds {
		m.round.Store(uint32(round))
		if err := m.block.Expect(func(page uint64) { m.asked <- page }); err != nil {
			return 0, err
		}
		var devices sync.WaitGroup
		for d := range uint64(attackProcs) {
			devices.Go(func() { m.device(rand.New(rand.NewPCG(uint64(round), d))) })
		}
		devices.Wait()
		if err := m.err.Load(); err != nil {
			return 0, fmt.Errorf("round %d: %w", round, *err)
		}
		if round%10 == 9 {
			fmt.Println("round", round+1)
		}
	}
	stop.Store(true)
	close(m.asked)
	m.u.Interrupt()
	wg.Wait()
	return collections, errors.Join(m.u.Close(), m.memory.Close())
}

// page is the handler: it puts in place what is asked for.
func (m *machine) page() {
	size := m.block.PageSize()
	for page := range m.asked {
		// Now and then a page stays away for a whole collection.
		if page == attackPages/2 && m.round.Load()%5 == 0 {
			<-m.collected
			<-m.collected
		}
		src := bytes.Repeat([]byte{byte(m.round.Load())}, int(size))
		if n, err := m.u.Copy(m.block.Addr()+uintptr(page*size), src, true); n != size || err != nil && err != unix.EEXIST {
			m.fail(fmt.Errorf("UFFDIO_COPY of page %d: %d, %w", page, n, err))
		}
		m.block.MarkPresent(page, 1)
	}
}

// watch reads the userfaultfd. Nothing may come: there is no vCPU, and the
// accessors stay away from absent pages.
func (m *machine) watch() {
	var events [8]uffd.Event
	for m.u.Wait() == nil {
		n, err := m.u.Read(events[:])
		if err != nil && err != unix.EAGAIN {
			m.fail(err)
			return
		}
		for _, e := range events[:n] {
			m.fail(fmt.Errorf("Go code touched the absent page at %#x", e.Addr))
			m.u.ZeroPage(uintptr(e.Addr)&^uintptr(os.Getpagesize()-1), uint64(os.Getpagesize()))
		}
	}
}

// device reads and writes all over the memory, in an order of its own.
func (m *machine) device(r *rand.Rand) {
	size := m.block.PageSize()
	p := make([]byte, size+64)
	for _, page := range r.Perm(attackPages - 1) {
		gpa := uint64(page) * size
		if m.direct {
			p[0] = m.mapping[gpa]
			continue
		}
		if err := m.memory.ReadAt(p, gpa); err != nil {
			m.fail(err)
			return
		}
		if want := byte(m.round.Load()); p[0] != want || p[size] != want {
			m.fail(fmt.Errorf("page %d reads %d and %d, want %d", page, p[0], p[size], want))
			return
		}
		// Not the first byte, which is compared.
		if err := m.memory.WriteAt(p[:8], gpa+size+8*uint64(1+r.IntN(100))); err != nil {
			m.fail(err)
			return
		}
	}
}
