package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"microvm/devices/console"
)

// The keys that leave are seen while nobody takes the others, of which those that
// are too many are dropped with a bell.
func TestTheKeysThatLeaveWaitForNobody(t *testing.T) {
	deaf := make(chan struct{})
	defer close(deaf)
	var notices bytes.Buffer
	typed := strings.Repeat("x", maxKeys+100) + "\x01x"
	err := typeKeys(iotest.OneByteReader(strings.NewReader(typed)), &notices, func([]byte) error { <-deaf; return nil })
	if !errors.Is(err, console.ErrLeave) {
		t.Errorf("it ends with %v", err)
	}
	// One is on its way to the guest at most.
	if bells := strings.Count(notices.String(), "\a"); bells != 100 && bells != 99 {
		t.Errorf("%d bells, want one for each of 100 keys", bells)
	}
}

// What was typed before them arrives.
func TestWhatWasTypedBeforeLeavingArrives(t *testing.T) {
	var got []byte
	err := typeKeys(iotest.OneByteReader(strings.NewReader("poweroff\r\x01xspare")), &bytes.Buffer{}, func(p []byte) error {
		got = append(got, p...)
		return nil
	})
	if !errors.Is(err, console.ErrLeave) || string(got) != "poweroff\r" {
		t.Errorf("the guest got %q, %v", got, err)
	}
	failed := errors.New("the VM has ended")
	err = typeKeys(neverEnding{}, &bytes.Buffer{}, func([]byte) error { return failed })
	if !errors.Is(err, failed) {
		t.Errorf("it ends with %v", err)
	}
}

// neverEnding is a key that is held down.
type neverEnding struct{}

func (neverEnding) Read(p []byte) (int, error) { p[0] = 'x'; return 1, nil }
