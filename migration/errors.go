package migration

import (
	"errors"
	"fmt"
)

// RefusedError says that the migration was turned down before anything moved:
// by what this side found, or by the destination. The source runs on as if
// nothing had happened.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return "migration refused: " + e.Reason }

// PausedError says that the connection was lost after POSTCOPY_RUN: the guest
// is the destination's, the source keeps every page and never runs it by itself.
type PausedError struct{ Err error }

func (e *PausedError) Error() string {
	return "migration paused: the source still holds pages that the destination needs; do not end either process: " + e.Err.Error()
}

func (e *PausedError) Unwrap() error { return e.Err }

// FailedError is what a destination said when it gave up.
type FailedError struct{ Text string }

func (e *FailedError) Error() string { return "the destination failed: " + e.Text }

// ErrCancelled says that the migration was called off before POSTCOPY_RUN.
var ErrCancelled = errors.New("migration cancelled")

// ErrTimeout says that the guest did not run at the destination within
// Options.Timeout.
var ErrTimeout = errors.New("the migration took too long")

// protocolError is a message that makes sense by itself, but not here.
func protocolError(message, format string, args ...any) error {
	return fmt.Errorf("migration stream: %s: %s", message, fmt.Sprintf(format, args...))
}
