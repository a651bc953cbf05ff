package vmm

import (
	"errors"
	"strings"
	"testing"
)

// The table of the design, written out: what is not in it is refused.
func TestStateMachine(t *testing.T) {
	allowed := map[State]map[Command]State{
		StateCreated: {CommandStart: StateRunning, CommandStop: StateStopped, CommandKill: StateStopped},
		StateRunning: {
			CommandPause: StatePaused, CommandResume: StateRunning, CommandPowerButton: StateRunning,
			CommandMigrate: StateRunning, CommandSnapshot: StateRunning, CommandGrow: StateRunning, CommandBalloon: StateRunning, CommandStop: StateStopped, CommandKill: StateStopped,
		},
		StatePaused: {
			CommandPause: StatePaused, CommandResume: StateRunning, CommandMigrate: StatePaused, CommandSnapshot: StatePaused, CommandGrow: StatePaused, CommandBalloon: StatePaused,
			CommandHandOver: StatePostcopy, CommandStop: StateStopped, CommandKill: StateStopped,
		},
		StateIncoming: {CommandArrive: StatePostcopy, CommandStop: StateStopped, CommandKill: StateStopped},
		StatePostcopy: {
			CommandTakeBack: StatePaused, CommandDepart: StateMigrated, CommandSettle: StateRunning,
			CommandKill: StateStopped,
		},
		StateMigrated: {},
		StateStopped:  {},
	}
	if len(allowed) != int(numStates) {
		t.Fatalf("%d states are tested, there are %d", len(allowed), numStates)
	}
	for state, commands := range allowed {
		for c := range numCommands {
			vm := &VM{config: Config{Name: "v"}, state: state}
			err := vm.advance(c)
			want, ok := commands[c]
			if !ok {
				var refused *StateError
				if !errors.As(err, &refused) || refused.State != state || refused.Command != c {
					t.Errorf("%v a VM that is %v: got %v, want a *StateError", c, state, err)
				} else if text := err.Error(); !strings.Contains(text, "VM v") || !strings.Contains(text, state.String()) ||
					strings.Contains(text, "in two places until the migration") != (state == StatePostcopy) {
					t.Errorf("the error names too little: %s", text)
				}
				want = state
			} else if err != nil {
				t.Errorf("%v a VM that is %v: %v", c, state, err)
			}
			if vm.state != want {
				t.Errorf("%v a VM that is %v makes it %v, want %v", c, state, vm.state, want)
			}
		}
	}
}

func TestEndingVMTakesNoCommand(t *testing.T) {
	vm := &VM{state: StateRunning, ending: true}
	for c := range numCommands {
		if err := vm.advance(c); err == nil {
			t.Errorf("%v is allowed", c)
		}
	}
}

func TestStateText(t *testing.T) {
	for s := range numStates {
		b, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back State
		if err := back.UnmarshalText(b); err != nil || back != s {
			t.Errorf("%v is read as %v (%v)", s, back, err)
		}
	}
	var s State
	if err := s.UnmarshalText([]byte("asleep")); err == nil {
		t.Error("an unknown state was taken")
	}
}
