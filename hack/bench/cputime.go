package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc/PID/stat: USER_HZ is 100 on every machine that Linux gives KVM to.
const clockTick = 10 * time.Millisecond

// cpuTime is what all threads of some processes have had of the CPUs, their work in the kernel included, in
// nanoseconds.
func cpuTime(processes ...*process) (float64, error) {
	var sum float64
	for _, p := range processes {
		path := fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid)
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, err
		}
		ticks, err := parseStat(string(text))
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		sum += ticks * float64(clockTick)
	}
	return sum, nil
}

// parseStat gives utime and stime together. They are the 12th and 13th word after the name in parentheses, which may
// hold anything.
func parseStat(text string) (float64, error) {
	words := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const utime, stime = 11, 12
	if len(words) <= stime {
		return 0, fmt.Errorf("only %d words after the name", len(words))
	}
	var sum float64
	for _, w := range words[utime : stime+1] {
		n, err := strconv.ParseUint(w, 10, 64)
		if err != nil {
			return 0, err
		}
		sum += float64(n)
	}
	return sum, nil
}
