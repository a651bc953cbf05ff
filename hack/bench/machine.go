package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// machine is where a run took place.
type machine struct {
	What       string `json:"what"`
	LoadBefore string `json:"loadavg_before"`
	LoadAfter  string `json:"loadavg_after"`
}

func thisMachine() machine {
	var name unix.Utsname
	release := "of unknown release"
	if unix.Uname(&name) == nil {
		release = unix.ByteSliceToString(name.Release[:])
	}
	return machine{What: fmt.Sprintf("%d CPUs (%s), Linux %s", runtime.NumCPU(), cpuModel(), release), LoadBefore: loadAverage()}
}

func cpuModel() string {
	text, _ := os.ReadFile("/proc/cpuinfo") // without /proc the model stays unknown
	for line := range strings.Lines(string(text)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown model"
}

// loadAverage is /proc/loadavg: what else the machine was doing.
func loadAverage() string {
	text, _ := os.ReadFile("/proc/loadavg")
	words := strings.Fields(string(text))
	return strings.Join(words[:min(3, len(words))], " ")
}
