package main

import (
	"fmt"
	"time"
)

// guestWork is the command line of the tiny kernel for the guest that moves: every page written once, then, unless it is
// to be idle, pages of the first half written at random.
func guestWork(m migration) string {
	const filled = "fill=1 beat=100 "
	if m.idle {
		return filled + "work=idle"
	}
	line := filled + fmt.Sprintf("work=write order=rand span=%d", m.mem/2)
	if m.rate > 0 {
		line += fmt.Sprintf(" rate=%d", m.rate)
	}
	return line
}

// spare is what a VMM and what runs beside it may take while a guest moves, in MiB.
const spare = 128

// ready waits until a guest of so many MiB is well under way, the same on both sides, and sees to memory for its
// destination.
func ready(source *process, mem int) error {
	if err := awaitWork(source); err != nil {
		return err
	}
	return warm(mem + spare)
}

// awaitWork waits until the guest has filled its memory and has worked for a while.
func awaitWork(p *process) error {
	_, _, _, err := p.await(0, "beat 3 ")
	return err
}

// awaitLife waits for a heartbeat from now on: the guest is alive where it went.
func awaitLife(p *process) error {
	_, _, _, err := p.await(p.said(), "beat ")
	return err
}

// firstLine waits for a process's first line.
func firstLine(p *process) (string, error) {
	_, line, _, err := p.await(0, "")
	return line, err
}

// within calls f until it is done, or says why not any more.
func within(what string, f func() (done bool, err error)) error {
	deadline := time.Now().Add(waitLimit)
	for {
		done, err := f()
		if done || err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s: not within %v", what, waitLimit)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
