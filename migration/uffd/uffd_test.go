package uffd

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"testing"

	"microvm/memslot"

	"golang.org/x/sys/unix"
)

func open(t testing.TB) *UFFD {
	t.Helper()
	u, err := Open()
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSYS) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	})
	return u
}

// newRAM maps a block and has u watch it. What a test gets to see of it by
// Go code goes through copyOut, which is a system call.
func newRAM(t testing.TB, u *UFFD, pages uint64, kind memslot.Backing) (b *memslot.Block, mem []byte) {
	t.Helper()
	size := uint64(unix.Getpagesize())
	if kind == memslot.Hugetlb {
		size = 2 << 20
	}
	b, err := memslot.NewBlock("ram", pages*size, memslot.BlockOptions{Backing: kind})
	if kind == memslot.Hugetlb && errors.Is(err, unix.ENOMEM) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	if mem, err = b.View(0, b.Size()); err != nil {
		t.Fatal(err)
	}
	if err := u.Register(b.Addr(), b.Size()); err != nil {
		t.Fatal(err)
	}
	return b, mem
}

// toucher reads memory from inside a system call, as a vCPU would in KVM_RUN:
// write(2) into a pipe.
type toucher struct{ r, w int }

func newToucher(t testing.TB) *toucher {
	t.Helper()
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return &toucher{fds[0], fds[1]}
}

// copyOut gives the first bytes of p, at most what a pipe holds.
func (c *toucher) copyOut(p []byte) ([]byte, error) {
	n, err := unix.Write(c.w, p)
	if err != nil {
		return nil, err
	}
	got := make([]byte, n)
	_, err = unix.Read(c.r, got)
	return got, err
}

func eachBacking(t *testing.T, f func(t *testing.T, kind memslot.Backing)) {
	for _, k := range []memslot.Backing{memslot.Anonymous, memslot.Memfd, memslot.Hugetlb} {
		t.Run(k.String(), func(t *testing.T) { f(t, k) })
	}
}

// nextEvent waits for one fault.
func nextEvent(u *UFFD) (Event, error) {
	var events [1]Event
	for {
		if err := u.Wait(); err != nil {
			return Event{}, err
		}
		if _, err := u.Read(events[:]); err != unix.EAGAIN {
			return events[0], err
		}
	}
}

// TestDemandPaging: a thread in a system call sleeps on a missing page, the
// event says which page and which thread, and Copy lets it go on with the
// page's contents.
func TestDemandPaging(t *testing.T) {
	eachBacking(t, func(t *testing.T, kind memslot.Backing) {
		u := open(t)
		b, mem := newRAM(t, u, 4, kind)
		size := b.PageSize()
		var thread int
		for _, page := range []uint64{2, 0, 3, 1} {
			want := bytes.Repeat([]byte{byte(page + 1)}, int(size))
			result := make(chan error, 1)
			started := make(chan int, 1)
			go func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				c := newToucher(t)
				started <- unix.Gettid()
				got, err := c.copyOut(mem[page*size+100:][:16])
				if err == nil && !bytes.Equal(got, want[:16]) {
					err = errors.New("read something else than was put there")
				}
				result <- err
			}()
			thread = <-started
			e, err := nextEvent(u)
			if err != nil {
				t.Fatal(err)
			}
			if e.Addr&^(size-1) != uint64(b.Addr())+page*size || e.TID != thread || e.Flags != 0 {
				t.Errorf("event %+v, want page %d of %#x, thread %d, a read", e, page, b.Addr(), thread)
			}
			n, err := u.Copy(b.Addr()+uintptr(page*size), want, true)
			if n != size || err != nil {
				t.Fatalf("Copy: %d, %v", n, err)
			}
			if err := <-result; err != nil {
				t.Error(err)
			}
		}
		if n, err := u.Read(make([]Event, 4)); n != 0 || err != unix.EAGAIN {
			t.Errorf("Read without events: %d, %v, want EAGAIN", n, err)
		}
	})
}

func TestWriteFaultIsFlagged(t *testing.T) {
	u := open(t)
	b, mem := newRAM(t, u, 1, memslot.Anonymous)
	c := newToucher(t)
	if _, err := unix.Write(c.w, []byte("in")); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := unix.Read(c.r, mem[:2])
		done <- err
	}()
	e, err := nextEvent(u)
	if err != nil {
		t.Fatal(err)
	}
	if e.Flags != FaultWrite {
		t.Errorf("flags %#x, want FaultWrite", e.Flags)
	}
	if n, err := u.ZeroPage(b.Addr(), b.Size()); n != b.Size() || err != nil {
		t.Fatalf("ZeroPage: %d, %v", n, err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got, err := c.copyOut(mem[:3]); err != nil || string(got) != "in\x00" {
		t.Errorf("memory holds %q, %v", got, err)
	}
}

func TestZeroPage(t *testing.T) {
	eachBacking(t, func(t *testing.T, kind memslot.Backing) {
		u := open(t)
		b, mem := newRAM(t, u, 3, kind)
		if n, err := u.ZeroPage(b.Addr(), b.Size()); n != b.Size() || err != nil {
			t.Fatalf("ZeroPage: %d, %v, want %d", n, err, b.Size())
		}
		c := newToucher(t)
		for page := range uint64(3) {
			if got, err := c.copyOut(mem[page*b.PageSize():][:8]); err != nil || !bytes.Equal(got, make([]byte, 8)) {
				t.Errorf("page %d reads %x, %v", page, got, err)
			}
		}
		if n, err := u.ZeroPage(b.Addr(), b.PageSize()); n != 0 || err != unix.EEXIST {
			t.Errorf("ZeroPage again: %d, %v, want EEXIST", n, err)
		}
	})
}

// TestCopyStopsAtAPageThatIsThere: what the push meets when an urgent page has
// overtaken it. First it learns how far it came, then why no further.
func TestCopyStopsAtAPageThatIsThere(t *testing.T) {
	eachBacking(t, func(t *testing.T, kind memslot.Backing) {
		u := open(t)
		b, mem := newRAM(t, u, 4, kind)
		size := b.PageSize()
		urgent, bulk := bytes.Repeat([]byte{'u'}, int(size)), bytes.Repeat([]byte{'b'}, int(4*size))
		if n, err := u.Copy(b.Addr()+uintptr(2*size), urgent, false); n != size || err != nil {
			t.Fatalf("Copy of page 2: %d, %v", n, err)
		}
		if n, err := u.Copy(b.Addr(), bulk, true); n != 2*size || err != unix.EAGAIN {
			t.Errorf("Copy of all: %d, %v, want %d, EAGAIN", n, err, 2*size)
		}
		if n, err := u.Copy(b.Addr()+uintptr(2*size), bulk[2*size:], true); n != 0 || err != unix.EEXIST {
			t.Errorf("Copy from page 2 on: %d, %v, want 0, EEXIST", n, err)
		}
		if n, err := u.Copy(b.Addr()+uintptr(3*size), bulk[3*size:], true); n != size || err != nil {
			t.Errorf("Copy of page 3: %d, %v", n, err)
		}
		c := newToucher(t)
		for page, want := range "bbub" {
			if got, err := c.copyOut(mem[uint64(page)*size:][:1]); err != nil || string(got) != string(want) {
				t.Errorf("page %d holds %q, %v, want %q", page, got, err, want)
			}
		}
	})
}

// TestDiscardedPageIsMissingAgain: what precopy has sent and the source has
// changed since is dropped and comes a second time. The block is large enough
// for transparent huge pages, which must not bring neighbours along.
func TestDiscardedPageIsMissingAgain(t *testing.T) {
	eachBacking(t, func(t *testing.T, kind memslot.Backing) {
		pages := uint64(1024)
		if kind == memslot.Hugetlb {
			pages = 4
		}
		u := open(t)
		b, mem := newRAM(t, u, pages, kind)
		size := b.PageSize()
		put := func(page uint64, fill byte) {
			t.Helper()
			n, err := u.Copy(b.Addr()+uintptr(page*size), bytes.Repeat([]byte{fill}, int(size)), true)
			if n != size || err != nil {
				t.Fatalf("Copy of page %d: %d, %v", page, n, err)
			}
			b.MarkPresent(page, 1)
		}
		if err := b.Expect(func(uint64) {}); err != nil {
			t.Fatal(err)
		}
		for page := range pages - 1 {
			put(page, 'a')
		}
		if err := b.Discard(1, 2); err != nil {
			t.Fatal(err)
		}
		put(2, 'b')
		put(1, 'b')
		c := newToucher(t)
		for page, want := range "abb" {
			if got, err := c.copyOut(mem[uint64(page)*size:][:1]); err != nil || string(got) != string(want) {
				t.Errorf("page %d holds %q, %v, want %q", page, got, err, want)
			}
		}
		put(pages-1, 'c')
		if err := b.Complete(); err != nil {
			t.Error(err)
		}
	})
}

func TestCopyRefuses(t *testing.T) {
	u := open(t)
	b, _ := newRAM(t, u, 2, memslot.Anonymous)
	page := make([]byte, b.PageSize())
	if err := u.Unregister(b.Addr()+uintptr(b.PageSize()), b.PageSize()); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		dst  uintptr
		src  []byte
		want error
	}{
		{"inside a page", b.Addr() + 1, page, unix.EINVAL},
		{"part of a page", b.Addr(), page[:100], unix.EINVAL},
		{"nothing", b.Addr(), nil, unix.EINVAL},
		{"not registered", b.Addr() + uintptr(b.PageSize()), page, unix.ENOENT},
	} {
		if n, err := u.Copy(c.dst, c.src, true); n != 0 || err != c.want {
			t.Errorf("%s: %d, %v, want %v", c.name, n, err, c.want)
		}
	}
	if err := u.Register(b.Addr()+1, b.PageSize()); !errors.Is(err, unix.EINVAL) {
		t.Errorf("Register inside a page: %v", err)
	}
	other := open(t)
	if err := other.Register(b.Addr(), b.PageSize()); !errors.Is(err, unix.EBUSY) {
		t.Errorf("Register of what another one watches: %v", err)
	}
}

// TestWakeAfterQuietCopy: pages may be put in place without waking, and their
// waiters be woken later, all at once.
func TestWakeAfterQuietCopy(t *testing.T) {
	const pages = 4
	u := open(t)
	b, mem := newRAM(t, u, pages, memslot.Anonymous)
	size := b.PageSize()
	var wg sync.WaitGroup
	for page := range uint64(pages) {
		c := newToucher(t)
		wg.Go(func() {
			if got, err := c.copyOut(mem[page*size:][:1]); err != nil || got[0] != 7 {
				t.Errorf("page %d: %v, %v", page, got, err)
			}
		})
	}
	for range pages {
		if _, err := nextEvent(u); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := u.Copy(b.Addr(), bytes.Repeat([]byte{7}, int(b.Size())), false); n != b.Size() || err != nil {
		t.Fatalf("Copy: %d, %v", n, err)
	}
	if err := u.Wake(b.Addr(), b.Size()); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
}

func TestReadTakesManyEvents(t *testing.T) {
	const pages = 5
	u := open(t)
	b, mem := newRAM(t, u, pages, memslot.Anonymous)
	var wg sync.WaitGroup
	for page := range uint64(pages) {
		c := newToucher(t)
		wg.Go(func() { c.copyOut(mem[page*b.PageSize():][:1]) })
	}
	seen := map[uint64]bool{}
	events := make([]Event, 3)
	for len(seen) < pages {
		if err := u.Wait(); err != nil {
			t.Fatal(err)
		}
		n, err := u.Read(events)
		if n == 0 || n > len(events) || err != nil {
			t.Fatalf("Read after Wait: %d, %v", n, err)
		}
		for _, e := range events[:n] {
			seen[e.Addr] = true
		}
	}
	if err := u.Unregister(b.Addr(), b.Size()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestFaultPathDoesNotAllocate(t *testing.T) {
	u := open(t)
	const pages = 20
	b, _ := newRAM(t, u, pages, memslot.Anonymous)
	src := make([]byte, b.PageSize())
	events := make([]Event, 8)
	page := uintptr(0)
	// One run more than asked for, to warm up.
	if n := testing.AllocsPerRun(pages-1, func() {
		if _, err := u.Copy(b.Addr()+page*uintptr(b.PageSize()), src, true); err != nil {
			t.Error(err)
		}
		if _, err := u.Copy(b.Addr()+page*uintptr(b.PageSize()), src, true); err != unix.EEXIST {
			t.Error(err)
		}
		if _, err := u.Read(events); err != unix.EAGAIN {
			t.Error(err)
		}
		page++
	}); n != 0 {
		t.Errorf("%v allocations for a page", n)
	}
}

func TestInterruptStopsTheReader(t *testing.T) {
	u := open(t)
	done := make(chan error, 1)
	go func() { done <- u.Wait() }()
	u.Interrupt()
	if err := <-done; err != ErrInterrupted {
		t.Errorf("Wait: %v", err)
	}
	u.Interrupt()
	if err := u.Wait(); err != ErrInterrupted {
		t.Errorf("Wait after it: %v", err)
	}
}

// TestSystemCallAlone: hosts before Linux 6.1 have no /dev/userfaultfd.
func TestSystemCallAlone(t *testing.T) {
	fd, err := openCall()
	if err == unix.EPERM || err == unix.ENOSYS {
		t.Skipf("userfaultfd(2): %v: run as root, on a kernel with CONFIG_USERFAULTFD", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := handshake(fd); err != nil {
		t.Error(err)
	}
}

func BenchmarkCopy(b *testing.B) {
	u := open(b)
	block, _ := newRAM(b, u, 1<<14, memslot.Anonymous)
	for _, n := range []uint64{4 << 10, 64 << 10, 1 << 20} {
		b.Run(map[uint64]string{4 << 10: "4KiB", 64 << 10: "64KiB", 1 << 20: "1MiB"}[n], func(b *testing.B) {
			src := bytes.Repeat([]byte{1}, int(n))
			b.SetBytes(int64(n))
			b.ReportAllocs()
			at := block.Size()
			for b.Loop() {
				if at >= block.Size() {
					b.StopTimer()
					if err := block.Expect(func(uint64) {}); err != nil {
						b.Fatal(err)
					}
					at = 0
					b.StartTimer()
				}
				if done, err := u.Copy(block.Addr()+uintptr(at), src, true); done != n || err != nil {
					b.Fatal(done, err)
				}
				at += n
			}
		})
	}
}
