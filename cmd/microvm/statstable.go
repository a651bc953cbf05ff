package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"microvm/vmm"
)

// printStats writes tables of what a VM has counted; with what it had counted
// before, or nil, also of how much that was a second since then.
func printStats(w io.Writer, s vmm.Stats, before *vmm.Stats) error {
	t := countTable{w: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	if before == nil {
		before = &vmm.Stats{}
	} else {
		t.seconds = (s.Uptime - before.Uptime).Seconds()
	}
	if len(s.Devices) > 0 {
		t.devices(s.Devices, before.Devices)
		fmt.Fprintln(t.w)
		t.queues(s.Devices, before.Devices)
		fmt.Fprintln(t.w)
	}
	t.vcpus(s.VCPUs, before.VCPUs)
	return t.w.Flush()
}

// A countTable is a table of two names, counts, and words.
type countTable struct {
	w *tabwriter.Writer
	// seconds, if not 0, is the time in which counts have grown from what
	// they were before.
	seconds float64
}

// A count is a cell, and with a time a second one.
type count struct {
	now, before uint64
	show        func(uint64) string
}

func number(now, before uint64) count {
	return count{now, before, func(n uint64) string { return fmt.Sprint(n) }}
}

func (t *countTable) head(first, second string, counts []string, words ...string) {
	fmt.Fprintf(t.w, "%s\t%s", first, second)
	for _, c := range counts {
		fmt.Fprintf(t.w, "\t%s", c)
		if t.seconds > 0 {
			fmt.Fprint(t.w, "\t/S")
		}
	}
	t.end(words)
}

func (t *countTable) row(first, second string, counts []count, words ...string) {
	fmt.Fprintf(t.w, "%s\t%s", first, second)
	for _, c := range counts {
		fmt.Fprintf(t.w, "\t%s", c.show(c.now))
		if t.seconds > 0 {
			fmt.Fprintf(t.w, "\t%s", c.show(uint64(float64(c.now-min(c.before, c.now))/t.seconds+0.5)))
		}
	}
	t.end(words)
}

func (t *countTable) end(words []string) {
	for _, word := range words {
		fmt.Fprintf(t.w, "\t%s", word)
	}
	fmt.Fprintln(t.w)
}

func (t *countTable) devices(now, before []vmm.DeviceInfo) {
	t.head("DEVICE", "", []string{"REQUESTS", "BYTES"}, "ERRORS", "P50", "P99", "MAX")
	for i, d := range now {
		then := at(before, i).Counts
		for _, r := range d.Counts.Requests {
			was := then.Of(r.Sort)
			t.row(d.ID, r.Sort, []count{number(r.Requests, was.Requests), {r.Bytes, was.Bytes, bytesText}},
				fmt.Sprint(r.Errors), quantile(r.Latency, 0.5), quantile(r.Latency, 0.99), quantile(r.Latency, 1))
		}
		for _, name := range slices.Sorted(maps.Keys(d.Counts.Counters)) {
			t.row(d.ID, name, []count{number(d.Counts.Counters[name], then.Counters[name])})
		}
		for _, name := range slices.Sorted(maps.Keys(d.Counts.Gauges)) {
			fmt.Fprintf(t.w, "%s\t%s\t%d\n", d.ID, name, d.Counts.Gauges[name])
		}
	}
}

func (t *countTable) queues(now, before []vmm.DeviceInfo) {
	t.head("DEVICE", "QUEUE", []string{"KICKS", "CHAINS", "INTERRUPTS"})
	for i, d := range now {
		for j, q := range d.Queues {
			was := at(at(before, i).Queues, j)
			t.row(d.ID, fmt.Sprint(j), []count{number(q.Kicks, was.Kicks), number(q.Chains, was.Chains), number(q.Interrupts, was.Interrupts)})
		}
	}
}

func (t *countTable) vcpus(now, before []vmm.VCPUStats) {
	t.head("VCPU", "", []string{"PORT I/O EXITS", "MMIO EXITS", "KICKS", "OTHERS"})
	for i, c := range now {
		was := at(before, i)
		t.row(fmt.Sprint(i), "", []count{number(c.PortIO, was.PortIO), number(c.MMIO, was.MMIO), number(c.Kicked, was.Kicked), number(c.Other, was.Other)})
	}
}

// at is s[i], or nothing past its end.
func at[T any](s []T, i int) (v T) {
	if i < len(s) {
		v = s[i]
	}
	return v
}

// quantile is the time within which so much of a histogram's requests were
// done, as far as its buckets tell: see virtio.RequestCounts.
func quantile(log2us []uint64, share float64) string {
	total, seen := uint64(0), uint64(0)
	for _, n := range log2us {
		total += n
	}
	for i, n := range log2us {
		seen += n
		switch {
		case n == 0 || float64(seen) < share*float64(total):
		case i == len(log2us)-1:
			return fmt.Sprintf(">%v", roundTo3(time.Microsecond<<(i-1)))
		default:
			return fmt.Sprintf("<%v", roundTo3(time.Microsecond<<i))
		}
	}
	return "-"
}
