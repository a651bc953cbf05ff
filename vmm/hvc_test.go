package vmm

import (
	"errors"
	"testing"
)

// TestAConsoleIsResizedWhereItRuns: a VM whose state may have been saved does not
// change, and hears of it when it runs on.
func TestAConsoleIsResizedWhereItRuns(t *testing.T) {
	config := tinyConfig("beat=50")
	config.VirtioConsole = true
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	has := func(columns, rows uint64) {
		t.Helper()
		if g := vm.VirtioDevices()[0].Counts.Gauges; g["columns"] != columns || g["rows"] != rows {
			t.Errorf("it has %d columns and %d rows, want %d and %d", g["columns"], g["rows"], columns, rows)
		}
	}
	if err := vm.ResizeConsole(ConsoleSize{80, 24}); err != nil {
		t.Fatal(err)
	}
	has(80, 24)
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context()), vm.ResizeConsole(ConsoleSize{100, 40})); err != nil {
		t.Fatal(err)
	}
	has(80, 24)
	if err := vm.Resume(); err != nil {
		t.Fatal(err)
	}
	has(100, 40)
	var refusal *APIError
	if err := vm.ResizeConsole(ConsoleSize{0, 24}); !errors.As(err, &refusal) || refusal.Code != CodeBadRequest {
		t.Errorf("no columns: %v", err)
	}
	vm, _ = boot(t, tinyConfig("beat=50"))
	if err := vm.ResizeConsole(ConsoleSize{80, 24}); !errors.As(err, &refusal) || refusal.Code != CodeBadRequest {
		t.Errorf("there is none: %v", err)
	}
}
