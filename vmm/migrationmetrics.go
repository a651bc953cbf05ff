package vmm

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"microvm/migration"
)

var (
	metricPhase       = newMetric("migration_phase", "1 for the phase that the last migration is in, as this side sees it.", "phase", "side")
	metricElapsed     = newMetric("migration_duration_seconds", "Since the last migration from here was asked for, until it has ended.", "side")
	metricPages       = newMetric("migration_pages", "Pages of 4096 bytes of the guest.", "side")
	metricPagesLeft   = newMetric("migration_pages_left", "Pages that are not sent (source), or not here (destination).", "side")
	metricWire        = newMetric("migration_wire_bytes_total", "Bytes sent (source) or received (destination).", "side")
	metricThrottle    = newMetric("migration_throttle_ratio", "Share of the time that the guest is kept from running.", "side")
	metricFaults      = newMetric("migration_fault_duration_seconds", "Waits for a page at the destination.", "side")
	metricRequested   = newMetric("migration_fault_requests_total", "Pages that the destination asked for.", "side")
	metricAsync       = newMetric("migration_async_faults_total", "Waits by a worker of the kernel in place of a vCPU.", "side")
	metricBlocktime   = newMetric("migration_blocktime_seconds_total", "In which every vCPU waited for a page at once.", "side")
	metricVCPUBlock   = newMetric("migration_vcpu_blocktime_seconds_total", "In which a vCPU waited for a page.", "side", "vcpu")
	metricDeviceBlock = newMetric("migration_device_blocktime_seconds_total", "In which some device waited for a page.", "side")
	metricDowntime    = newMetric("migration_downtime_seconds", "From the vCPUs stopped at the source to running at the destination, and its parts.", "part", "side")
	metricEnded       = newMetric("migrations_total", "Migrations from here that have ended, or came to be paused.", "result")
)

// phases of either side.
var phases = map[migration.Owner][]migration.Phase{
	migration.OwnerSource: {
		migration.PhaseSetup, migration.PhaseActive, migration.PhaseDevice, migration.PhasePostcopyActive,
		migration.PhasePostcopyPaused, migration.PhaseCompleted, migration.PhaseFailed, migration.PhaseCancelled,
	},
	migration.OwnerDestination: {
		migration.PhaseSetup, migration.PhaseAdvise, migration.PhaseListening, migration.PhaseLoaded,
		migration.PhaseRunning, migration.PhasePaused, migration.PhaseCompleted, migration.PhaseFailed,
	},
}

// migration shows one, as a side sees it.
func (s scrape) migration(side migration.Owner, st migration.Status) {
	seconds := func(ns int64) float64 { return time.Duration(ns).Seconds() }
	by := string(side)
	oneOf(s, metricPhase, st.Phase, phases[side], by)
	if st.PagesTotal > 0 { // else nobody has come yet, and nothing is known
		s.gauge(metricPages, float64(st.PagesTotal), by)
		s.gauge(metricPagesLeft, float64(st.PagesLeft), by)
	}
	s.counter(metricWire, float64(st.BytesWire), by)
	if side == migration.OwnerSource { // a destination waits for it to begin
		s.gauge(metricElapsed, seconds(st.ElapsedNS), by)
		s.gauge(metricThrottle, float64(st.Throttle)/100, by)
	}
	if d := st.Downtime; d != nil {
		s.gauge(metricDowntime, seconds(st.DowntimeNS), "total", by)
		s.gauge(metricDowntime, seconds(d.PauseNS), "pause", by)
		s.gauge(metricDowntime, seconds(d.SaveNS), "save", by)
		s.gauge(metricDowntime, seconds(d.TransferNS), "transfer", by)
		s.gauge(metricDowntime, seconds(d.LoadNS), "load", by)
		s.gauge(metricDowntime, seconds(d.ResumeNS), "resume", by)
	}
	if w := st.Waits; w != nil {
		s.durations(metricFaults, w.Faults.Histogram, time.Duration(w.Faults.TotalNS), by)
		s.counter(metricRequested, float64(w.Faults.Requested), by)
		s.counter(metricAsync, float64(w.Faults.Async), by)
		s.counter(metricBlocktime, seconds(w.BlocktimeNS), by)
		s.counter(metricDeviceBlock, seconds(w.DeviceBlocktimeNS), by)
		for i, ns := range w.VCPUBlocktimeNS {
			s.counter(metricVCPUBlock, seconds(ns), by, strconv.Itoa(i))
		}
	}
}

// Describe implements prometheus.Collector.
func (*departure) Describe(chan<- *prometheus.Desc) {}

// Collect shows the last migration from here, and how those before went.
func (d *departure) Collect(out chan<- prometheus.Metric) {
	s := scrape(out)
	d.mu.Lock()
	source, ended := d.source, d.ended
	d.mu.Unlock()
	for i, result := range results {
		s.counter(metricEnded, float64(ended[i]), string(result))
	}
	if source != nil {
		s.migration(migration.OwnerSource, d.event().Status)
	}
}

// results are those of a source, in the order in which they are counted.
var results = [...]migration.Result{migration.ResultCompleted, migration.ResultFailed, migration.ResultCancelled, migration.ResultPaused}

// An arrivalCollector shows a migration to here.
type arrivalCollector struct{ dest *migration.Destination }

// Describe implements prometheus.Collector.
func (arrivalCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c arrivalCollector) Collect(out chan<- prometheus.Metric) {
	scrape(out).migration(migration.OwnerDestination, c.dest.Status())
}
