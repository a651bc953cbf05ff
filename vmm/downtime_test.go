package vmm

import (
	"testing"
	"time"
)

// BenchmarkDowntime8CPUs is what a migration does between the pause at the
// source and the run at the destination but for the network: every device saved,
// and loaded into a machine that has just been built, as it is there.
func BenchmarkDowntime8CPUs(b *testing.B) {
	machine := tinyConfig("")
	machine.CPUs = 8
	from, err := New(b.Context(), machine, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer from.Close()
	config, err := from.Config()
	if err != nil {
		b.Fatal(err)
	}
	var save, load time.Duration
	for b.Loop() {
		to, err := NewIncoming(b.Context(), config, Options{})
		if err != nil {
			b.Fatal(err)
		}
		var states [][]byte
		began := time.Now()
		for _, d := range from.Devices() {
			state, err := d.Save()
			if err != nil {
				b.Fatal(err)
			}
			states = append(states, state)
		}
		saved := time.Now()
		for i, d := range to.Devices() {
			if err := d.Load(d.Version(), states[i]); err != nil {
				b.Fatal(err)
			}
		}
		save, load = save+saved.Sub(began), load+time.Since(saved)
		if err := to.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(save.Nanoseconds())/float64(b.N), "save-ns/op")
	b.ReportMetric(float64(load.Nanoseconds())/float64(b.N), "load-ns/op")
	b.ReportMetric(0, "ns/op")
}
