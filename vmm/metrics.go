package vmm

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// This file has what a VM shows to Prometheus, besides its migrations
// (migrationmetrics.go). A scrape reads counters: it waits for no vCPU, and
// leaves the guest and its memory alone. docs/api.md lists the metrics.

// A metric is one name, with its help and its labels.
type metric struct{ desc *prometheus.Desc }

func newMetric(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("microvm_"+name, help, labels, nil)}
}

// scrape is where metrics go.
type scrape chan<- prometheus.Metric

func (s scrape) counter(m metric, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(m.desc, prometheus.CounterValue, v, labels...)
}

func (s scrape) gauge(m metric, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(m.desc, prometheus.GaugeValue, v, labels...)
}

// oneOf has a series for each of names, which is 1 for the one that is now.
func oneOf[T ~string](s scrape, m metric, now T, names []T, labels ...string) {
	for _, name := range names {
		v := 0.0
		if name == now {
			v = 1
		}
		s.gauge(m, v, append([]string{string(name)}, labels...)...)
	}
}

// durationBuckets is how many bounds a histogram of durations has: 1 us and its
// doubles, up to 4.2 s.
const durationBuckets = 23

// durations is a histogram of so many, which took so long in all: log2us[0] took
// less than 1 us, log2us[i] from 2^(i-1) to less than 2^i us.
func (s scrape) durations(m metric, log2us []uint64, total time.Duration, labels ...string) {
	buckets := make(map[float64]uint64, durationBuckets)
	var count uint64
	for i := range max(len(log2us), durationBuckets) {
		if i < len(log2us) {
			count += log2us[i]
		}
		if i < durationBuckets {
			buckets[(time.Microsecond << i).Seconds()] = count
		}
	}
	s <- prometheus.MustNewConstHistogram(m.desc, count, total.Seconds(), buckets, labels...)
}

var (
	metricState   = newMetric("state", "1 for the state that the VM is in.", "state")
	metricStarted = newMetric("start_time_seconds", "When the VM's process began to answer, in seconds since 1970.")
	metricCPUs    = newMetric("vcpus", "vCPUs.")
	metricMemory  = newMetric("memory_bytes", "Guest RAM.")
	metricExits   = newMetric("vcpu_exits_total", "Exits of a vCPU to the VM's process; what KVM handles by itself is not among them.", "vcpu", "reason")

	metricRequests   = newMetric("device_requests_total", "Requests that a virtio device has done, failed ones included.", "device", "sort")
	metricErrors     = newMetric("device_request_errors_total", "Requests that failed.", "device", "sort")
	metricBytes      = newMetric("device_request_bytes_total", "What requests carried that did not fail.", "device", "sort")
	metricLatency    = newMetric("device_request_duration_seconds", "From a request taken from its queue to the request done.", "device", "sort")
	metricKicks      = newMetric("device_queue_kicks_total", "Notifications by the driver.", "device", "queue")
	metricChains     = newMetric("device_queue_chains_total", "Chains of buffers that the driver made available.", "device", "queue")
	metricInterrupts = newMetric("device_queue_interrupts_total", "Notifications of the driver.", "device", "queue")
)

// deviceMetrics are what only some device counts, by its name in virtio.Counts.
var deviceMetrics = map[string]metric{
	"size":     newMetric("disk_size_bytes", "Size of a disk.", "device"),
	"o_direct": newMetric("disk_o_direct", "1 if a disk's file is not cached by the host.", "device"),
	"io_uring": newMetric("disk_io_uring_requests_total", "Requests of a disk that io_uring has done.", "device"),

	"pairs":          newMetric("net_queue_pairs", "Pairs of queues that a network card's driver uses.", "device"),
	"receive_drops":  newMetric("net_receive_drops_total", "Frames that the driver had no room for.", "device"),
	"transmit_drops": newMetric("net_transmit_drops_total", "Frames that the tap did not take.", "device"),
	"announcements":  newMetric("net_announcements_total", "Announcements of where the guest is.", "device"),

	"connections":   newMetric("vsock_connections", "Connections of a vsock device.", "device"),
	"from_guest":    newMetric("vsock_connections_from_guest_total", "Connections that the guest asked for.", "device"),
	"from_host":     newMetric("vsock_connections_from_host_total", "Connections that the host's programs asked for.", "device"),
	"refused":       newMetric("vsock_connections_refused_total", "Connections that were refused.", "device"),
	"resets":        newMetric("vsock_resets_total", "Connections that were reset.", "device"),
	"unanswered":    newMetric("vsock_unanswered_packets_total", "Packets of no connection that got no answer.", "device"),
	"untaken_bytes": newMetric("vsock_untaken_bytes_total", "Payload that the host's programs did not take.", "device"),

	"rests":      newMetric("rng_rests_total", "How often a driver that asked for too many random bytes had to wait.", "device"),
	"columns":    newMetric("console_columns", "Columns of a virtio console.", "device"),
	"rows":       newMetric("console_rows", "Rows of a virtio console.", "device"),
	"lost_bytes": newMetric("console_lost_bytes_total", "Output of a virtio console that nobody took.", "device"),

	"target_bytes":     newMetric("balloon_target_bytes", "What a balloon is to hold.", "device"),
	"actual_bytes":     newMetric("balloon_actual_bytes", "What it holds, by the driver's word.", "device"),
	"given_back_bytes": newMetric("balloon_given_back_bytes_total", "Memory that the host got of it.", "device"),
}

// A vmCollector shows the VM of an API.
type vmCollector struct{ api *API }

// Describe says nothing: what there is depends on the VM.
func (vmCollector) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (c vmCollector) Collect(out chan<- prometheus.Metric) {
	s, state, vm := scrape(out), StateIncoming, c.api.VM()
	s.gauge(metricStarted, float64(c.api.started.UnixMilli())/1e3)
	if vm != nil {
		state = vm.State()
		s.gauge(metricCPUs, float64(vm.config.CPUs))
		s.gauge(metricMemory, float64(vm.config.Memory))
		s.vcpus(vm.VCPUs())
		for _, d := range vm.VirtioDevices() {
			s.device(d)
		}
	}
	oneOf(s, metricState, state.String(), stateNames[:])
}

func (s scrape) vcpus(all []VCPUStats) {
	for i, c := range all {
		cpu := strconv.Itoa(i)
		s.counter(metricExits, float64(c.PortIO), cpu, "port_io")
		s.counter(metricExits, float64(c.MMIO), cpu, "mmio")
		s.counter(metricExits, float64(c.Kicked), cpu, "kicked")
		s.counter(metricExits, float64(c.Other), cpu, "other")
	}
}

func (s scrape) device(d DeviceInfo) {
	for _, r := range d.Counts.Requests {
		s.counter(metricRequests, float64(r.Requests), d.ID, r.Sort)
		s.counter(metricErrors, float64(r.Errors), d.ID, r.Sort)
		s.counter(metricBytes, float64(r.Bytes), d.ID, r.Sort)
		if r.Latency != nil {
			s.durations(metricLatency, r.Latency, time.Duration(r.TookNS), d.ID, r.Sort)
		}
	}
	for i, q := range d.Queues {
		queue := strconv.Itoa(i)
		s.counter(metricKicks, float64(q.Kicks), d.ID, queue)
		s.counter(metricChains, float64(q.Chains), d.ID, queue)
		s.counter(metricInterrupts, float64(q.Interrupts), d.ID, queue)
	}
	for name, v := range d.Counts.Counters {
		if m, ok := deviceMetrics[name]; ok {
			s.counter(m, float64(v), d.ID)
		}
	}
	for name, v := range d.Counts.Gauges {
		if m, ok := deviceMetrics[name]; ok {
			s.gauge(m, float64(v), d.ID)
		} else {
			// A guest's figure of its memory: guest_free_bytes.
			s.gauge(newMetric("balloon_"+name, "The guest's own figure, as it gave it last.", "device"), float64(v), d.ID)
		}
	}
}
