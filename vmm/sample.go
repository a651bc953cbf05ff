package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"microvm/migration"
)

// A Sample is a VM that is built as run would build it, and never started: what a
// host can be asked of, before there is a VM that is to move there.
type Sample struct{ *VM }

// NewSample makes one. Close frees it.
func NewSample(ctx context.Context, c Config) (*Sample, error) {
	vm, err := New(ctx, c, Options{})
	if err != nil {
		return nil, err
	}
	return &Sample{vm}, nil
}

// Config implements migration.SourceMachine.
func (s *Sample) Config() ([]byte, error) {
	b, err := s.VM.Config()
	if err != nil {
		return nil, err
	}
	var c machineConfig
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("sample: %w", err)
	}
	c.Sample = true
	return json.Marshal(c)
}

// Check asks the destination at dest what would stop such a VM.
func (s *Sample) Check(ctx context.Context, dest migration.Address, opt migration.Options) (migration.Outlook, error) {
	source, err := migration.NewSource(s, dest, opt)
	if err != nil {
		return migration.Outlook{}, err
	}
	found, err := source.Check(ctx)
	return found, errors.Join(err, ctx.Err())
}
