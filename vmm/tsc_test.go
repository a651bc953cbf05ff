package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"microvm/migration"
)

func TestTSCsThatDifferLittleCountAsTheSame(t *testing.T) {
	const host = 2_000_000
	for guest, want := range map[uint32]bool{
		host: true, host + 500: true, host - 500: true, // 250 parts in a million
		host + 501: false, host - 501: false, 2 * host: false, 0: false, 1<<32 - 1: false,
	} {
		if got := sameTSC(guest, host); got != want {
			t.Errorf("%d kHz on a host of %d kHz: %v", guest, host, got)
		}
	}
}

// forged is a VM whose TSC runs at another speed, says its Config.
type forged struct {
	*VM
	change func(kHz uint32) uint32
}

func (f *forged) Config() ([]byte, error) {
	text, err := f.VM.Config()
	if err != nil {
		return nil, err
	}
	var c machineConfig
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, err
	}
	c.TSCKHz = f.change(c.TSCKHz)
	return json.Marshal(c)
}

func TestATSCWithinTheToleranceIsTaken(t *testing.T) {
	vm, _ := boot(t, tinyConfig(""))
	config, err := (&forged{vm, func(kHz uint32) uint32 { return kHz + kHz/5000 }}).Config()
	if err != nil {
		t.Fatal(err)
	}
	there, err := NewIncoming(t.Context(), config, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := there.Close(); err != nil {
		t.Error(err)
	}
}

// A guest that finds its clock at another speed measures time wrongly from then
// on: it must stay where it is, and its user be told why.
func TestAGuestWhoseTSCCannotRunHereStaysWhereItIs(t *testing.T) {
	vm, out := boot(t, tinyConfig("beat=20"))
	for _, c := range []struct {
		name   string
		change func(uint32) uint32
	}{
		{"no speed at all", func(uint32) uint32 { return 0 }},
		// No processor scales so far.
		{"far too slow", func(kHz uint32) uint32 { return kHz / 100_000 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := vm.Depart(); err != nil {
				t.Fatal(err)
			}
			defer vm.Stay()
			ln, err := migration.Listen(t.Context(), migration.Address{Network: "tcp", Target: "127.0.0.1:0"})
			if err != nil {
				t.Fatal(err)
			}
			var built *VM
			d := migration.NewDestination(func(ctx context.Context, config []byte) (_ migration.DestinationMachine, err error) {
				if built, err = NewIncoming(ctx, config, Options{}); err != nil {
					return nil, err
				}
				return built, nil
			}, migration.DestinationOptions{})
			received := make(chan error, 1)
			go func() { received <- d.Receive(t.Context(), ln) }()
			s, err := migration.NewSource(&forged{vm, c.change}, migration.ListenAddress(ln), migration.Options{Mode: migration.ModePostcopy})
			if err != nil {
				t.Fatal(err)
			}
			r, err := s.Run(t.Context())
			<-received
			var refused *migration.RefusedError
			if !errors.As(err, &refused) || r.Owner != migration.OwnerSource || r.RAM.PagesZero+r.RAM.PagesPostcopy != 0 || built != nil {
				t.Fatalf("it ended with %v, owner %s, RAM %+v", err, r.Owner, r.RAM)
			}
			for _, kHz := range []uint32{c.change(vm.tscKHz), vm.tscKHz} {
				if want := fmt.Sprintf("%d kHz", kHz); !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nwant %q in it", err, want)
				}
			}
			out.wait(t, lines(out.String(), "beat ")+2, "beat ")
		})
	}
}
