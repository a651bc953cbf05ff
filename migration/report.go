package migration

// Result says how a migration ended.
type Result string

const (
	ResultCompleted Result = "completed"
	ResultFailed    Result = "failed"
	ResultCancelled Result = "cancelled"
	ResultPaused    Result = "paused"
	// ResultLost is a destination's alone: the guest ran there and cannot go on.
	ResultLost Result = "lost"
)

// Owner says which side may run the guest.
type Owner string

const (
	OwnerSource      Owner = "source"
	OwnerDestination Owner = "destination"
)

// Report is the account of one migration. Every figure in it was measured;
// durations are in nanoseconds. Its JSON form is part of the command line's
// contract.
type Report struct {
	VM     string `json:"vm"`
	ID     string `json:"id"`
	Mode   string `json:"mode"`
	Result Result `json:"result"`
	Owner  Owner  `json:"owner"`
	Error  string `json:"error"`

	// DowntimeNS runs from the instant the source's vCPUs stop to the
	// instant the destination's run, by the source's clock: until RUNNING
	// arrives, less half a round trip. 0 if the destination never ran.
	DowntimeNS int64    `json:"downtime_ns"`
	Downtime   Downtime `json:"downtime"`
	TotalNS    int64    `json:"total_ns"`
	PrecopyNS  int64    `json:"precopy_ns"`
	PostcopyNS int64    `json:"postcopy_ns"`
	// Passes of precopy, and why the last of them was the last.
	Passes int    `json:"precopy_passes"`
	Switch string `json:"switch"`
	// Throttle is what AutoConverge did.
	Throttle ThrottleReport `json:"throttle"`

	RAM         RAMReport          `json:"ram"`
	Compression *CompressionReport `json:"compression"` // nil: not asked for
	Checksum    bool               `json:"checksum"`    // every run of pages carried one
	Faults      FaultReport        `json:"faults"`

	// BlocktimeNS is the time during which every vCPU waited for a page at
	// once; the others are the time each waited, and the time in which some
	// device waited.
	BlocktimeNS       int64   `json:"blocktime_ns"`
	VCPUBlocktimeNS   []int64 `json:"vcpu_blocktime_ns"`
	DeviceBlocktimeNS int64   `json:"device_blocktime_ns"`

	Channels int `json:"channels"`
	// ChannelBytes is what was written to each channel: main, urgent, and
	// the multi channels in their order.
	ChannelBytes []uint64 `json:"channel_bytes"`
	Recoveries   int      `json:"recoveries"`
	Verified     *bool    `json:"verified"` // nil: not asked for, or not known
}

// Downtime splits DowntimeNS into what it was spent on.
type Downtime struct {
	PauseNS    int64 `json:"pause_ns"`    // vCPUs and devices brought to rest
	SaveNS     int64 `json:"save_ns"`     // device state read
	TransferNS int64 `json:"transfer_ns"` // on the way: package, LOADED, POSTCOPY_RUN
	LoadNS     int64 `json:"load_ns"`     // userfaultfd armed, device state loaded
	ResumeNS   int64 `json:"resume_ns"`   // vCPUs started
}

// ThrottleReport is by how much the guest was slowed down while precopy sent
// its memory, and for how long in all. Zeros: it was not.
type ThrottleReport struct {
	MaxPercent int   `json:"max_percent"` // of the time kept from running, at most
	TookNS     int64 `json:"took_ns"`
}

// RAMReport counts guest memory, in target pages of 4096 bytes.
type RAMReport struct {
	BytesTotal     uint64 `json:"bytes_total"`
	PagesTotal     uint64 `json:"pages_total"`
	PagesZero      uint64 `json:"pages_zero"`      // all zeros, sent as a mark
	PagesPrecopy   uint64 `json:"pages_precopy"`   // sent while the source ran
	PagesPostcopy  uint64 `json:"pages_postcopy"`  // sent since, as data
	PagesRequested uint64 `json:"pages_requested"` // of these, in answer to a request
	PagesRepeated  uint64 `json:"pages_repeated"`  // sent a second time, in none of the above: asked for while on their way
	PagesDiscarded uint64 `json:"pages_discarded"` // sent, then changed, then dropped
	BytesWire      uint64 `json:"bytes_wire"`      // all that was written to the channels
	// RunsDamaged are those that arrived after the switch as something else
	// than was sent: each cost the connections, and was sent again.
	RunsDamaged uint64 `json:"runs_damaged"`
}

// FaultReport describes the page faults that had to wait for the source, from
// userfaultfd's event in hand to the page in place.
type FaultReport struct {
	Count     uint64 `json:"count"`     // waits for a page
	Requested uint64 `json:"requested"` // pages that a request was sent for
	// Async of Count were waited for by a worker of the kernel in place of a
	// vCPU, which could run on or sleep: KVM's asynchronous page faults. They
	// are no part of anybody's blocktime.
	Async     uint64   `json:"async"`
	TotalNS   int64    `json:"total_ns"` // of all waits together
	P50NS     int64    `json:"p50_ns"`
	P90NS     int64    `json:"p90_ns"`
	P99NS     int64    `json:"p99_ns"`
	MaxNS     int64    `json:"max_ns"`
	Histogram []uint64 `json:"histogram_log2_us"` // [0] under 1 us, [i] from 2^(i-1) to under 2^i us
	// Phases are of the faults that a page was requested for.
	Phases FaultPhases `json:"phases"`
}

// FaultPhases splits the time that a fault takes, in the order in which it goes
// by. Request, Reply and what Reply is made of are of the faults that a page was
// requested for.
type FaultPhases struct {
	// Kernel is from a touch of a missing page to userfaultfd's event in hand,
	// and Wake from the call that puts the page in place to whoever touched it
	// running again. An event has no time in it: they are measured on a page of
	// our own, every 50 ms, and are 0 if there was no time for that, or before
	// Linux 5.14.
	KernelP50NS int64 `json:"kernel_p50_ns"`
	KernelP99NS int64 `json:"kernel_p99_ns"`
	// Request is from the event in hand to the request written.
	RequestP50NS int64 `json:"request_p50_ns"`
	RequestP99NS int64 `json:"request_p99_ns"`
	// Travel is from there to the page in hand: out, at the source, and back.
	TravelP50NS int64 `json:"travel_p50_ns"`
	TravelP99NS int64 `json:"travel_p99_ns"`
	// Source is the part of Travel that the source knows: from a request read
	// to its pages written.
	SourceP50NS int64 `json:"source_p50_ns"`
	SourceP99NS int64 `json:"source_p99_ns"`
	// Place is from the page in hand to the page in place.
	PlaceP50NS int64 `json:"place_p50_ns"`
	PlaceP99NS int64 `json:"place_p99_ns"`
	WakeP50NS  int64 `json:"wake_p50_ns"`
	WakeP99NS  int64 `json:"wake_p99_ns"`
	// Reply is Travel and Place.
	ReplyP50NS int64 `json:"reply_p50_ns"`
	ReplyP99NS int64 `json:"reply_p99_ns"`
}

// stats is the body of STATS: what only the destination can know.
type stats struct {
	Faults            FaultReport `json:"faults"`
	BlocktimeNS       int64       `json:"blocktime_ns"`
	VCPUBlocktimeNS   []int64     `json:"vcpu_blocktime_ns"`
	DeviceBlocktimeNS int64       `json:"device_blocktime_ns"`
	PagesLeft         uint64      `json:"pages_left"`
	RunsDamaged       uint64      `json:"runs_damaged"`
	Verified          *bool       `json:"verified"`
	Problem           string      `json:"problem,omitempty"` // what --verify found
}
