package migration

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A vCPU that runs on the CPU where the answer to its page has come keeps the
// answer waiting for the rest of its turn.
func TestUrgentThreadsAskForShortTurns(t *testing.T) {
	type turn struct {
		attr *unix.SchedAttr
		err  error
	}
	got := make(chan turn)
	go func() {
		urgentThread()
		attr, err := unix.SchedGetAttr(0, 0)
		got <- turn{attr, err}
	}()
	now := <-got
	before, err := unix.SchedGetAttr(0, 0)
	if err != nil || now.err != nil {
		t.Fatal(err, now.err)
	}
	if before.Runtime == 0 {
		t.Skip("this kernel has no slices for ordinary threads; Linux 6.12 or newer has")
	}
	if now.attr.Runtime != uint64(urgentSlice) || now.attr.Runtime >= before.Runtime {
		t.Errorf("a turn of %d ns, others have %d, %v was asked for", now.attr.Runtime, before.Runtime, urgentSlice)
	}
	if now.attr.Policy != before.Policy || now.attr.Nice > before.Nice {
		t.Errorf("policy %d, nice %d; others have %d, %d", now.attr.Policy, now.attr.Nice, before.Policy, before.Nice)
	}
}
