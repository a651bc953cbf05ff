package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
	"time"

	"microvm/migration"
	"microvm/migration/wire"
)

const pageSize = wire.PageSize

// rows is a table for a person: a name and what there is to say.
type rows struct{ t *tabwriter.Writer }

func newRows(w io.Writer) rows { return rows{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

func (r rows) add(name, format string, args ...any) {
	fmt.Fprintf(r.t, "%s\t%s\n", name, fmt.Sprintf(format, args...))
}

// printReport writes a report for a person.
func printReport(w io.Writer, r *migration.Report) error {
	table := newRows(w)
	row := table.add
	ns := func(n int64) time.Duration { return roundTo3(time.Duration(n)) }
	word := paintFor(w).doubt
	switch r.Result {
	case migration.ResultCompleted:
		word = paintFor(w).good
	case migration.ResultFailed:
		word = paintFor(w).bad
	}
	row("migration", "%s of %s by %s: %s, the guest is at the %s", r.ID[:min(8, len(r.ID))], r.VM, r.Mode, word(string(r.Result)), r.Owner)
	if r.Error != "" {
		row("error", "%s", r.Error)
	}
	if r.DowntimeNS > 0 {
		d := r.Downtime
		row("downtime", "%v (pause %v, save %v, transfer %v, load %v, resume %v)",
			ns(r.DowntimeNS), ns(d.PauseNS), ns(d.SaveNS), ns(d.TransferNS), ns(d.LoadNS), ns(d.ResumeNS))
	}
	if r.Passes > 0 {
		row("precopy", "%v, %d passes, %d pages sent, %d of them dropped again", ns(r.PrecopyNS), r.Passes, r.RAM.PagesPrecopy, r.RAM.PagesDiscarded)
	}
	if r.Throttle.MaxPercent > 0 {
		row("slowed down", "for %v, by up to %d %%", ns(r.Throttle.TookNS), r.Throttle.MaxPercent)
	}
	if r.Switch != "" {
		row("switch", "%s", r.Switch)
	}
	row("total", "%v, of it after the switch %v", ns(r.TotalNS), ns(r.PostcopyNS))
	row("memory", "%s: after the switch %d pages as data, in all %d zero; %s on the wire",
		bytesText(r.RAM.BytesTotal), r.RAM.PagesPostcopy, r.RAM.PagesZero, bytesText(r.RAM.BytesWire))
	if n := r.ChannelBytes; len(n) > 2 {
		row("channels", "main %s, urgent %s, %d for memory with %s to %s each", bytesText(n[0]), bytesText(n[1]), len(n)-2,
			bytesText(slices.Min(n[2:])), bytesText(slices.Max(n[2:])))
	}
	if c := r.Compression; c != nil {
		row("compressed", "by %s: %s to %s in %v; of the runs %d compressed, %d would not become smaller, %d not tried",
			c.Codec, bytesText(c.BytesBefore), bytesText(c.BytesAfter), ns(c.TimeNS), c.RunsCompressed, c.RunsRaw, c.RunsSkipped)
		row("", "%s; %d changes of mind", c.Why, c.Turns)
	}
	if r.Checksum {
		row("checksums", "%d runs of pages were damaged on the way after the switch", r.RAM.RunsDamaged)
	}
	if r.Recoveries > 0 {
		row("recovered", "%d times from broken connections", r.Recoveries)
	}
	table.waits(&migration.Waits{Faults: r.Faults, BlocktimeNS: r.BlocktimeNS, VCPUBlocktimeNS: r.VCPUBlocktimeNS, DeviceBlocktimeNS: r.DeviceBlocktimeNS})
	if r.Verified != nil {
		row("verified", "%v", *r.Verified)
	}
	return table.t.Flush()
}

// printWaits writes how long the guest has waited for pages so far.
func printWaits(w io.Writer, r *migration.Waits) error {
	table := newRows(w)
	table.waits(r)
	return table.t.Flush()
}

// waits tells how long the guest waited for pages.
func (t rows) waits(r *migration.Waits) {
	row := t.add
	ns := func(n int64) time.Duration { return roundTo3(time.Duration(n)) }
	if f := r.Faults; f.Count > 0 {
		row("faults", "%d waited for, %d of them asynchronously, %d requested; p50 %v, p90 %v, p99 %v, max %v",
			f.Count, f.Async, f.Requested, ns(f.P50NS), ns(f.P90NS), ns(f.P99NS), ns(f.MaxNS))
		p := f.Phases
		there := func(source int64) string {
			if source == 0 {
				return "" // the destination's events do not know it
			}
			return fmt.Sprintf(" (there %v)", ns(source))
		}
		row("", "p50: to the reader %v, request out %v, to the source and back %v%s, placed %v, woken %v",
			ns(p.KernelP50NS), ns(p.RequestP50NS), ns(p.TravelP50NS), there(p.SourceP50NS), ns(p.PlaceP50NS), ns(p.WakeP50NS))
		row("", "p99: to the reader %v, request out %v, to the source and back %v%s, placed %v, woken %v",
			ns(p.KernelP99NS), ns(p.RequestP99NS), ns(p.TravelP99NS), there(p.SourceP99NS), ns(p.PlaceP99NS), ns(p.WakeP99NS))
	}
	if len(r.VCPUBlocktimeNS) > 0 {
		text := ""
		for i, n := range r.VCPUBlocktimeNS {
			text += fmt.Sprintf(", vCPU %d %v", i, ns(n))
		}
		row("blocktime", "all vCPUs at once %v%s, devices %v", ns(r.BlocktimeNS), text, ns(r.DeviceBlocktimeNS))
	}
}

// bytesText writes a number of bytes with three or four digits.
func bytesText(n uint64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	v, i := float64(n), 0
	for ; v >= 1024 && i < len(units)-1; i++ {
		v /= 1024
	}
	if i == 0 || v >= 100 {
		return fmt.Sprintf("%.0f %s", v, units[i])
	}
	return fmt.Sprintf("%.1f %s", v, units[i])
}

// roundTo3 rounds to three significant digits.
func roundTo3(d time.Duration) time.Duration {
	if d <= 0 {
		return d
	}
	unit := time.Duration(math.Pow10(max(0, int(math.Log10(float64(d)))-2)))
	return d.Round(unit)
}
