package vmm

import (
	"fmt"
	"strings"
)

// State is where a VM is in its life. Exactly one holds at any instant.
//
//	            start              pause
//	created ────────────▶ running ◀───────▶ paused
//	                        ▲       resume   │  ▲
//	                  settle│     hand over  │  │ take back
//	            run         │                ▼  │
//	incoming ────────────▶ postcopy        postcopy ───▶ migrated
//	(destination)                          (source)  depart
//
//	any of them but migrated ── stop, or the guest ends ──▶ stopped
type State uint8

// The states. Postcopy means the same on both sides: the guest runs at the
// destination while some of its memory is still at the source. A VM that is restored
// from a snapshot is a destination whose source is a file.
const (
	StateCreated  State = iota // built, never ran
	StateRunning               // vCPUs run here
	StatePaused                // vCPUs are out of KVM_RUN, state is whole and here
	StateIncoming              // built for a migration or a restoration, waits for its state
	StatePostcopy              // memory is spread over two hosts, or some of it is in a file
	StateMigrated              // lives elsewhere; nothing of it is owed from here
	StateStopped               // over
	numStates
)

var stateNames = [numStates]string{"created", "running", "paused", "incoming", "postcopy", "migrated", "stopped"}

// String returns the name that the API and ps show.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// MarshalText writes the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *State) UnmarshalText(b []byte) error {
	for i, name := range stateNames {
		if name == string(b) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("unknown VM state %q", b)
}

// A Command is something that may be asked of a VM, by its user or by a
// migration.
type Command uint8

// The commands.
const (
	CommandStart       Command = iota // first run of a VM that was built here
	CommandPause                      // vCPUs out
	CommandResume                     // vCPUs in
	CommandPowerButton                // ask the guest to shut down
	CommandStop                       // end it; refused where that would lose a VM that lives elsewhere
	CommandKill                       // end it whatever that costs
	CommandMigrate                    // begin to leave
	CommandSnapshot                   // write it to a directory
	CommandHandOver                   // ownership has gone to the destination
	CommandTakeBack                   // the destination proved that it never ran
	CommandDepart                     // the destination needs nothing more
	CommandArrive                     // ownership has come from the source
	CommandSettle                     // no page is missing any more
	CommandGrow                       // look whether its disks have grown
	CommandBalloon                    // take memory from the guest, or give it back
	numCommands
)

var commandNames = [numCommands]string{
	"start", "pause", "resume", "press the power button of", "stop", "kill", "migrate", "save",
	"hand over", "take back", "depart", "run the incoming", "settle", "grow the disks of", "set the balloon of",
}

// String returns the verb that error messages use.
func (c Command) String() string {
	if c < numCommands {
		return commandNames[c]
	}
	return fmt.Sprintf("command %d", uint8(c))
}

// rule says in which states a command is allowed and where it leads. A
// command whose stays is set does not itself change the state. One whose restoring is
// set is allowed in StatePostcopy too if the rest of the VM is in a file and not at
// another host.
type rule struct {
	from      stateSet
	to        State
	stays     bool
	restoring bool
}

type stateSet uint16

func in(states ...State) stateSet {
	var set stateSet
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

func (set stateSet) has(s State) bool { return set&(1<<s) != 0 }

func (set stateSet) String() string {
	var names []string
	for s := range numStates {
		if set.has(s) {
			names = append(names, s.String())
		}
	}
	return strings.Join(names, " or ")
}

// rules is the whole state machine. Pause of a paused VM and resume of a
// running one are allowed, and change nothing, so that a script may repeat
// them. Only settle can lead to two states: a VM that was paused when it
// left is paused when it has arrived (see VM.Settle).
var rules = [numCommands]rule{
	CommandStart:       {from: in(StateCreated), to: StateRunning},
	CommandPause:       {from: in(StateRunning, StatePaused), to: StatePaused},
	CommandResume:      {from: in(StatePaused, StateRunning), to: StateRunning},
	CommandPowerButton: {from: in(StateRunning), stays: true, restoring: true},
	CommandStop:        {from: in(StateCreated, StateRunning, StatePaused, StateIncoming), to: StateStopped, restoring: true},
	CommandKill:        {from: in(StateCreated, StateRunning, StatePaused, StateIncoming, StatePostcopy), to: StateStopped},
	CommandMigrate:     {from: in(StateRunning, StatePaused), stays: true},
	CommandSnapshot:    {from: in(StateRunning, StatePaused), stays: true},
	CommandHandOver:    {from: in(StatePaused), to: StatePostcopy},
	CommandTakeBack:    {from: in(StatePostcopy), to: StatePaused},
	CommandDepart:      {from: in(StatePostcopy), to: StateMigrated},
	CommandArrive:      {from: in(StateIncoming), to: StatePostcopy},
	CommandSettle:      {from: in(StatePostcopy), to: StateRunning},
	CommandGrow:        {from: in(StateRunning, StatePaused), stays: true},
	CommandBalloon:     {from: in(StateRunning, StatePaused), stays: true},
}

// A StateError refuses a command in the state the VM is in.
type StateError struct {
	VM      string
	Command Command
	State   State
	// Errand, if there is one, does not allow it. The state may.
	Errand Errand
}

func (e *StateError) Error() string {
	if e.Errand != ErrandNone {
		return fmt.Sprintf("cannot %v VM %s: "+underWay[e.Errand], e.Command, e.VM, e.VM)
	}
	why := ""
	if e.State == StatePostcopy {
		why = " (its memory is in two places until the migration, or the restoration, has completed)"
	}
	return fmt.Sprintf("cannot %v VM %s: it is %v%s, and has to be %v", e.Command, e.VM, e.State, why, rules[e.Command].from)
}
