package migration

// Phase is where one side of a migration is.
type Phase string

// The source goes through setup, active (while it sends memory of a guest that
// runs), device, postcopy-active, then completed; the
// destination through setup, advise, listening, loaded, running, completed.
const (
	PhaseSetup          Phase = "setup"
	PhaseAdvise         Phase = "advise"
	PhaseActive         Phase = "active"
	PhaseDevice         Phase = "device"
	PhaseListening      Phase = "listening"
	PhaseLoaded         Phase = "loaded"
	PhasePostcopyActive Phase = "postcopy-active"
	PhasePostcopyPaused Phase = "postcopy-paused"
	PhaseRunning        Phase = "running"
	PhasePaused         Phase = "paused"
	PhaseCompleted      Phase = "completed"
	PhaseFailed         Phase = "failed"
	PhaseCancelled      Phase = "cancelled"
)

// Status is a migration at one instant, while it goes on.
type Status struct {
	Phase      Phase  `json:"phase"`
	ElapsedNS  int64  `json:"elapsed_ns"`
	PagesTotal uint64 `json:"pages_total"`      // target pages
	PagesLeft  uint64 `json:"pages_left"`       // not yet sent (source), not yet placed (destination)
	BytesWire  uint64 `json:"bytes_wire"`       // sent (source), received (destination)
	Throttle   int    `json:"throttle_percent"` // of the time that the guest is kept from running
	Faults     uint64 `json:"faults"`           // waits for a page so far
	P99NS      int64  `json:"p99_ns"`           // of these waits
	// DowntimeNS and Downtime are those of a Report: the source knows them when
	// it hears that the guest runs at the destination.
	DowntimeNS int64     `json:"downtime_ns"`
	Downtime   *Downtime `json:"downtime,omitempty"`
	// Waits says more of them; nil before the guest runs at the destination.
	Waits *Waits `json:"waits,omitempty"`
}

// Waits is how long a guest at the destination has waited for pages so far, as
// in a Report.
type Waits struct {
	Faults            FaultReport `json:"faults"`
	BlocktimeNS       int64       `json:"blocktime_ns"`
	VCPUBlocktimeNS   []int64     `json:"vcpu_blocktime_ns"`
	DeviceBlocktimeNS int64       `json:"device_blocktime_ns"`
}
