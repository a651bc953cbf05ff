package plot

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"

	"microvm/migration"
)

// event is one of docs/events.md.
type event struct {
	Time  time.Time       `json:"time"`
	Seq   uint64          `json:"seq"`
	Side  migration.Owner `json:"side"`
	VM    string          `json:"vm"`
	ID    string          `json:"id"`
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
}

// What a picture needs of each event's data.
type (
	stateData struct {
		To string `json:"to"`
	}
	passData struct {
		Number    uint64 `json:"number"`
		SentBytes uint64 `json:"sent_bytes"`
		TookNS    int64  `json:"took_ns"`
		Dirty     uint64 `json:"dirty_bytes"`
	}
	switchData struct {
		Reason string `json:"reason"`
	}
	downtimeData struct {
		Part   string `json:"part"`
		TookNS int64  `json:"took_ns"`
	}
	pagesData struct {
		Precopy   uint64 `json:"pages_precopy"`
		Pushed    uint64 `json:"pages_pushed"`
		Requested uint64 `json:"pages_requested"`
		Zero      uint64 `json:"pages_zero"`
		Requests  uint64 `json:"requests"`
	}
	faultsData struct {
		Count             uint64  `json:"count"`
		Requested         uint64  `json:"requested"`
		Async             uint64  `json:"async"`
		P50NS             int64   `json:"p50_ns"`
		P90NS             int64   `json:"p90_ns"`
		P99NS             int64   `json:"p99_ns"`
		MaxNS             int64   `json:"max_ns"`
		BlocktimeNS       int64   `json:"blocktime_ns"`
		VCPUBlocktimeNS   []int64 `json:"vcpu_blocktime_ns"`
		DeviceBlocktimeNS int64   `json:"device_blocktime_ns"`

		Phases migration.FaultPhases `json:"phases"`
	}
	endData struct {
		Result migration.Result  `json:"result"`
		Owner  migration.Owner   `json:"owner"`
		Error  string            `json:"error"`
		Report *migration.Report `json:"report"`
	}
)

// happened takes in what an event says. Events that are not known here are from
// a newer version, and left out.
func (r *Record) happened(e *event) error {
	at := r.last
	switch migration.EventType(e.Event) {
	case migration.EventState:
		s, err := decode[stateData](e.Data)
		if err != nil || len(r.states) == mostStates {
			return err
		}
		r.states = append(r.states, state{at, s.To})
		r.end, r.Report = nil, nil // if there was an end, it was taken up again
	case migration.EventPass:
		p, err := decode[passData](e.Data)
		if err != nil {
			return err
		}
		r.passes.add(passSample{at, p})
		return notNegative(p.TookNS)
	case migration.EventSwitch:
		s, err := decode[switchData](e.Data)
		r.why = clean(s.Reason)
		return err
	case migration.EventDowntime:
		return r.downtimePart(at, e.Data)
	case migration.EventRecoveryBegin:
		if len(r.recoveries) < mostStates {
			r.recoveries = append(r.recoveries, interval{from: at, to: at, open: true})
		}
	case migration.EventRecoveryEnd:
		if n := len(r.recoveries); n > 0 && r.recoveries[n-1].open {
			r.recoveries[n-1].to, r.recoveries[n-1].open = at, false
		}
	case migration.EventPages:
		p, err := decode[pagesData](e.Data)
		if err == nil {
			r.pages.add(pagesSample{at, p})
		}
		return err
	case migration.EventFaults:
		f, err := decode[faultsData](e.Data)
		if err != nil {
			return err
		}
		if len(f.VCPUBlocktimeNS) > maxVCPUs {
			return fmt.Errorf("vcpu_blocktime_ns has %d vCPUs, at most %d allowed", len(f.VCPUBlocktimeNS), maxVCPUs)
		}
		r.faults.add(faultsSample{at, f.Count})
		r.waits = &f
		return notNegative(append(f.VCPUBlocktimeNS, f.P50NS, f.P90NS, f.P99NS, f.MaxNS, f.BlocktimeNS, f.DeviceBlocktimeNS)...)
	case migration.EventEnd:
		end, err := decode[endData](e.Data)
		if err != nil {
			return err
		}
		r.end = &end
		end.Error = clean(end.Error)
		if end.Report == nil {
			return nil
		}
		if err := checkReport(end.Report); err != nil {
			return fmt.Errorf("report: %w", err)
		}
		r.setReport(end.Report)
	}
	return nil
}

// downtimePart takes in one part of the downtime.
func (r *Record) downtimePart(at time.Duration, data json.RawMessage) error {
	d, err := decode[downtimeData](data)
	if err != nil {
		return err
	}
	if into := map[string]*int64{
		"pause": &r.downtime.PauseNS, "save": &r.downtime.SaveNS, "transfer": &r.downtime.TransferNS,
		"load": &r.downtime.LoadNS, "resume": &r.downtime.ResumeNS, "total": &r.total,
	}[d.Part]; into != nil {
		*into = d.TookNS
	}
	if d.Part == "pause" {
		r.stopped = max(0, at-time.Duration(max(d.TookNS, 0)))
	}
	return notNegative(d.TookNS)
}

func decode[T any](data json.RawMessage) (v T, err error) {
	return v, json.Unmarshal(data, &v)
}

func notNegative(durations ...int64) error {
	for _, d := range durations {
		if d < 0 {
			return fmt.Errorf("a duration is %d ns: has to be 0 or more", d)
		}
	}
	return nil
}

// maxVCPUs and maxBuckets are more than a report ever has.
const (
	maxVCPUs   = 4096
	maxBuckets = 64
)

// maxText is how much of a text in a file anybody reads, in bytes.
const maxText = 1000

// clean makes a text from a file one that a terminal can be given: of bounded
// length and without control characters.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, cut(text, maxText))
}

// checkReport refuses what no migration can have measured, and cleans its texts.
func checkReport(r *migration.Report) error {
	if len(r.VCPUBlocktimeNS) > maxVCPUs {
		return fmt.Errorf("vcpu_blocktime_ns has %d vCPUs, at most %d allowed", len(r.VCPUBlocktimeNS), maxVCPUs)
	}
	if len(r.Faults.Histogram) > maxBuckets {
		return fmt.Errorf("histogram_log2_us has %d buckets, at most %d allowed", len(r.Faults.Histogram), maxBuckets)
	}
	switch r.Owner {
	case migration.OwnerSource, migration.OwnerDestination:
	default:
		return fmt.Errorf("owner is %.40q: has to be source or destination", r.Owner)
	}
	switch r.Result {
	case migration.ResultCompleted, migration.ResultFailed, migration.ResultCancelled, migration.ResultPaused:
	default:
		return fmt.Errorf("result is %.40q: has to be completed, failed, cancelled or paused", r.Result)
	}
	for _, text := range []*string{&r.VM, &r.ID, &r.Mode, &r.Error, &r.Switch} {
		*text = clean(*text)
	}
	if c := r.Compression; c != nil {
		c.Codec, c.Why = clean(c.Codec), clean(c.Why)
	}
	d, f := &r.Downtime, &r.Faults
	if err := notNegative(r.VCPUBlocktimeNS...); err != nil {
		return fmt.Errorf("vcpu_blocktime_ns: %w", err)
	}
	return notNegative(r.DowntimeNS, d.PauseNS, d.SaveNS, d.TransferNS, d.LoadNS, d.ResumeNS, r.TotalNS, r.PrecopyNS, r.PostcopyNS,
		f.P50NS, f.P90NS, f.P99NS, f.MaxNS, r.BlocktimeNS, r.DeviceBlocktimeNS, r.Throttle.TookNS)
}
