package vmm

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"microvm/migration"
)

// A VM that is lost is over for everybody, and everybody is told so, whether
// its vCPUs come out of the kernel or not. Nothing of it is freed before.
func TestAVMThatIsLostIsOverForEverybody(t *testing.T) {
	call, vm, served := serve(t, tinyConfig("beat=20"))
	waiting := vm.cpus // as if one of them did not come
	waiting.done.Add(1)
	if reply := call.do(t, http.MethodGet, "/v1/vm", nil); reply.status != http.StatusOK {
		t.Fatal(reply)
	}
	stopping := make(chan struct{})
	go func() { vm.Stop(); close(stopping) }()
	why := &migration.LostError{Err: errors.New("the source burnt down")}
	vm.Abandon(why)
	if err := <-served; err != why {
		t.Errorf("Serve: %v", err)
	}
	<-stopping
	if exit := vm.ExitStatus(); exit.Code != ExitLost || !strings.Contains(exit.Reason, "burnt down") {
		t.Errorf("%+v", exit)
	}
	api := NewAPI("test")
	api.Attach(vm)
	answer := httptest.NewRecorder()
	api.ServeHTTP(answer, httptest.NewRequest("GET", "/v1/vm/wait", nil))
	if text := answer.Body.String(); !strings.Contains(text, "burnt down") {
		t.Errorf("whoever waits for it hears %q", text)
	}
	if err := vm.Close(); err == nil || !strings.Contains(err.Error(), "still waits for memory") {
		t.Errorf("Close, while a vCPU waits: %v", err)
	}
	if _, err := vm.ram.View(0, vm.ram.Size()); err != nil {
		t.Errorf("its memory is freed while a vCPU may need it: %v", err)
	}
	waiting.done.Done()
	if err := vm.Close(); err != nil {
		t.Error(err)
	}
}

// A guest may end while its memory is on the way: pages that are still being put in
// place have a place until the migration has ended.
func TestAVMIsFreedWhenTheMigrationItCameByHasEnded(t *testing.T) {
	needKVM(t)
	vm, err := New(t.Context(), tinyConfig("beat=20"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	if err := vm.inMemory.begin(); err != nil {
		t.Fatal(err)
	}
	closed := make(chan error)
	go func() { closed <- vm.Close() }()
	<-vm.Done()
	select {
	case err := <-closed:
		t.Fatalf("it is freed before: %v", err)
	case <-time.After(100 * time.Millisecond): // it would be at once
	}
	if _, err := vm.ram.View(0, vm.ram.Size()); err != nil {
		t.Error(err)
	}
	vm.inMemory.done()
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
