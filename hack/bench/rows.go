package main

import (
	"fmt"
	"slices"
	"strings"
)

// row is one line of the table: a figure of a measurement. Rows with the same measurement share its runs.
type row struct {
	group string // what --rows calls it
	name  string
	of    measurement
	get   string // the figure, by its name in figures
	unit  unit
	goal  string
}

// measurement is something that can be done with either side: a oneShot or a standing. It is comparable: equal ones are done
// once.
type measurement interface {
	// lab tells whether it is to be done in the lab, unless --here says that here is as good.
	lab() bool
}

// oneShot is a measurement of which each run begins anew.
type oneShot interface {
	measurement
	// sample does it once.
	sample(b *bench, s side) (figures, error)
}

// standing is a measurement of jobs that a guest does one after the other. One of each side stays up, and they take turns
// job by job: what is compared with each other is seconds apart.
type standing interface {
	measurement
	// begin starts one side's guest.
	begin(b *bench, s side) (worker, error)
	// jobs are the figures that there are, by name, in the order in which they are measured.
	jobs() []string
}

// worker is a guest that does jobs.
type worker interface {
	// do gives a job's figure.
	do(job string) (float64, error)
	end()
}

// figures are what a measurement gives, by name. Durations are in nanoseconds, sizes in bytes, rates in bytes a second.
type figures map[string]float64

// unit says how a figure is printed.
type unit struct {
	name    string
	divisor float64
	// more says that more is better.
	more bool
}

var (
	milliseconds = unit{name: "ms", divisor: 1e6}
	microseconds = unit{name: "us", divisor: 1e3}
	nanoseconds  = unit{name: "ns", divisor: 1}
	mebibytes    = unit{name: "MiB", divisor: 1 << 20}
	megabytes    = unit{name: "MB/s", divisor: 1e6, more: true}
	perSecond    = unit{name: "/s", divisor: 1, more: true}
	percent      = unit{name: "%", divisor: 0.01, more: true}
	count        = unit{name: "", divisor: 1}
)

// byDefault are the groups that are measured unless --rows says otherwise.
const byDefault = "postcopy,stall,latency,downtime,precopy,hybrid,connections,memory,lookup"

// table gives every row there is, for guests of so many MiB where the row says no other size.
func table(mem int) []row {
	postcopy := func(cpus int) migration { return migration{mode: "postcopy", cpus: cpus, mem: mem, rate: 0} }
	// A guest that writes as fast as it can never lets precopy end: this one can be kept up with.
	precopy := func(n int) migration {
		return migration{mode: "precopy", cpus: 1, mem: mem, rate: 2000, connections: n}
	}
	idle := postcopy(1)
	idle.idle = true
	hybrid := migration{mode: "hybrid", cpus: 1, mem: mem}
	// Every other one is over as many connections as the side has by default.
	single, singleHybrid := postcopy(1), hybrid
	single.connections, singleHybrid.connections = 1, 1
	rows := []row{
		{"postcopy", fmt.Sprintf("postcopy of %d MiB: total", mem), postcopy(1), "total", milliseconds, "0.25x"},
		{"postcopy", "the same of an idle guest: total", idle, "total", milliseconds, ""},
		{"postcopy", "the same of an idle guest: CPU time of both VMMs", idle, "cpu", milliseconds, ""},
		{"stall", "postcopy: stall (blocktime)", postcopy(1), "blocktime", milliseconds, "0.3x"},
		{"latency", "postcopy: pages requested", postcopy(1), "requests", count, ""},
		{"latency", "postcopy: stall for each page requested", postcopy(1), "wait", microseconds, ""},
		{"latency", "fault latency p50 (peer: bare request and reply of a page)", postcopy(1), "p50", microseconds, "2x of round trip + local fault"},
		{"latency", "fault latency p99 (peer: bare request and reply of a page)", postcopy(1), "p99", microseconds, "under 1 ms"},
		{"downtime", "downtime, 1 vCPU", postcopy(1), "downtime", milliseconds, "under 2 ms"},
		{"downtime", "downtime, 8 vCPUs", postcopy(8), "downtime", milliseconds, "under 5 ms"},
		{"precopy", "precopy, 1 connection", precopy(1), "rate", megabytes, "1.5x"},
		{"precopy", "precopy, 4 connections (peer: multifd)", precopy(4), "rate", megabytes, "1.5x"},
		{"hybrid", "hybrid: total", hybrid, "total", milliseconds, "0.5x"},
		{"hybrid", "hybrid: stall (blocktime)", hybrid, "blocktime", milliseconds, "0.5x"},
		{"connections", "postcopy, 1 connection: total", single, "total", milliseconds, "0.25x"},
		{"connections", "the same: stall (blocktime)", single, "blocktime", milliseconds, "0.3x"},
		{"connections", "the same: fault latency p99 (peer: bare request and reply of a page)", single, "p99", microseconds, "under 1 ms"},
		{"connections", "hybrid, 1 connection: total", singleHybrid, "total", milliseconds, "0.5x"},
		{"lookup", "memslot lookup, last slot again (of 512)", lookup{}, "slots=512/last", nanoseconds, "under 5 ns"},
		{"lookup", "memslot lookup, random (of 512)", lookup{}, "slots=512/random", nanoseconds, "under 20 ns"},
		{"lookup", "memslot lookup, allocations (of all)", lookup{}, "allocs", count, "0"},
	}
	for _, mem := range []int{128, 8192} {
		m := memory{mem}
		rows = append(rows,
			row{"memory", fmt.Sprintf("VMM's memory beyond the guest's, guest of %d MiB", mem), m, "beyond", mebibytes, "under 16 MiB"},
			row{"memory", fmt.Sprintf("of it not shared with files, guest of %d MiB", mem), m, "anonymous", mebibytes, ""})
	}
	for _, gib := range []int{1, 2, 4} {
		m := postcopy(1)
		m.mem = gib << 10
		rows = append(rows, row{"scale", fmt.Sprintf("postcopy of %d GiB: total", gib), m, "total", milliseconds, "a straight line"})
	}
	for _, cpus := range []int{1, 2, 4, 8} {
		rows = append(rows, row{"scale", fmt.Sprintf("postcopy, %d vCPUs: stall", cpus), postcopy(cpus), "blocktime", milliseconds, ""})
	}
	rows = append(rows, diskRows()...)
	rows = append(rows, networkRows()...)
	rows = append(rows, row{"boot", "boot: process start to the guest's init", boot{}, "init", milliseconds, "0.8x"})
	for _, rtt := range []int{1, 5, 20} {
		rows = append(rows, row{fmt.Sprintf("push-%d", rtt), fmt.Sprintf("postcopy push at %d ms of round trip, share of the link", rtt), push{rtt: rtt, mem: mem}, "share", percent, "over 90 %"})
	}
	return rows
}

// chosen gives the rows of some groups.
func chosen(rows []row, groups string) ([]row, error) {
	known := map[string]bool{}
	for _, r := range rows {
		known[r.group] = true
	}
	want := strings.Split(groups, ",")
	for _, g := range want {
		if !known[g] {
			return nil, fmt.Errorf("--rows %s: there is no %q; --list shows what there is", groups, g)
		}
	}
	return slices.DeleteFunc(rows, func(r row) bool { return !slices.Contains(want, r.group) }), nil
}
