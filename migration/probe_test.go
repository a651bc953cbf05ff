package migration

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/memslot"
)

// needPopulate skips what only newer kernels let us measure.
func needPopulate(t *testing.T) {
	t.Helper()
	b, err := memslot.NewBlock("ram", 4096, memslot.BlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	mem, err := b.View(0, b.Size())
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Madvise(mem, unix.MADV_POPULATE_READ); errors.Is(err, unix.EINVAL) {
		t.Skip("MADV_POPULATE_READ: use Linux 5.14 or newer")
	} else if err != nil {
		t.Fatal(err)
	}
}

// measured waits until the probe has gone around n times.
func measured(t *testing.T, p *probe, n uint64) {
	t.Helper()
	until(t, fmt.Sprintf("%d wakings measured", n), func() bool { return p.woken.count.Load() >= n })
}

// until waits for what nothing tells of.
func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(time.Minute); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}

func TestTheKernelsPartOfAFaultIsMeasuredAndCountsForNobody(t *testing.T) {
	needPopulate(t)
	p, to := armed(t, 1<<20)
	p.listen(func(err error) { t.Error(err) })
	p.run(nil)
	measured(t, p.probe, 3)
	if k, w := p.probe.kernel.quantile(0.5), p.probe.woken.quantile(0.5); k <= 0 || w <= 0 {
		t.Errorf("to the reader %v, woken after %v", k, w)
	}
	if n := p.waits.latency.count.Load(); n != 0 || to.bytes != 0 || p.requested.Load() != 0 {
		t.Errorf("%d waits, %d requests in %d bytes", n, p.requested.Load(), to.bytes)
	}
	complete(t, p)
}

// complete has all the pages of 1 MiB come.
func complete(t *testing.T, p *pager) {
	t.Helper()
	if err := p.place(0, 0, 256, nil); err != nil {
		t.Fatal(err)
	}
	<-p.done
	if err := p.release(); err != nil {
		t.Fatal(err)
	}
}

// Whoever measures waits for a reader that is gone: it must not wait for ever.
func TestThePagerEndsWhileAFaultIsBeingMeasured(t *testing.T) {
	needPopulate(t)
	p, _ := armed(t, 1<<20)
	p.probe.start() // and no reader
	until(t, "the page is touched", func() bool { return p.probe.touched.Load() != 0 })
	p.abort(errTest)
	p.finish() // for the test's own end
}
