package vmm

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"microvm/devices/virtio"
	"microvm/migration"
)

// shows is a collector of what f puts out.
type shows func(scrape)

func (shows) Describe(chan<- *prometheus.Desc) {}

func (f shows) Collect(out chan<- prometheus.Metric) { f(out) }

// Prometheus adds up what is below a bound; this program counts what is between
// two, and the last of its counts has no bound above.
func TestHistogramsAreThoseOfPrometheus(t *testing.T) {
	var tally virtio.Tally
	for _, took := range []time.Duration{0, 3 * time.Microsecond, 3 * time.Microsecond, time.Millisecond, time.Minute} {
		tally.Add(512, took, nil)
	}
	tally.Add(0, -1, errors.New("no"))
	device := shows(func(s scrape) {
		s.device(DeviceInfo{ID: "disk0", Counts: virtio.Counts{Requests: []virtio.RequestCounts{tally.Counts("read")}}})
	})
	text, err := testutil.CollectAndFormat(device, expfmt.TypeTextPlain, "microvm_device_request_duration_seconds")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`_bucket{device="disk0",sort="read",le="1e-06"} 1`,
		`_bucket{device="disk0",sort="read",le="2e-06"} 1`,
		`_bucket{device="disk0",sort="read",le="4e-06"} 3`,
		`_bucket{device="disk0",sort="read",le="0.000512"} 3`,
		`_bucket{device="disk0",sort="read",le="0.001024"} 4`,
		`_bucket{device="disk0",sort="read",le="4.194304"} 4`,
		`_bucket{device="disk0",sort="read",le="+Inf"} 5`,
		`_sum{device="disk0",sort="read"} 60.001006`,
		`_count{device="disk0",sort="read"} 5`,
	} {
		if !strings.Contains(string(text), "microvm_device_request_duration_seconds"+want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// Names are as Prometheus' users expect them.
func TestMetricsAreNamedByTheConventions(t *testing.T) {
	all := shows(func(s scrape) {
		vmCollector{NewAPI("a")}.Collect(s)
		s.vcpus([]VCPUStats{{}})
		s.migration(migration.OwnerSource, migration.Status{Downtime: &migration.Downtime{}, Waits: &migration.Waits{VCPUBlocktimeNS: []int64{1}}})
		for name := range deviceMetrics {
			counts := virtio.Counts{Gauges: map[string]uint64{name: 1}}
			if strings.Contains(deviceMetrics[name].desc.String(), "_total") {
				counts = virtio.Counts{Counters: map[string]uint64{name: 1}}
			}
			s.device(DeviceInfo{ID: "d", Counts: counts})
		}
	})
	problems, err := testutil.CollectAndLint(all)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
