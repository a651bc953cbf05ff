package plot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"microvm/migration"
)

// maxValue bounds one JSON value of a file, in bytes: a report of the largest VM
// takes some kilobytes.
const maxValue = 1 << 20

var errTooLarge = fmt.Errorf("a JSON value is larger than %d bytes", maxValue)

// valueReader reads a file whose values are of bounded size.
type valueReader struct {
	in   io.Reader
	left int // of this value
}

func (v *valueReader) Read(b []byte) (int, error) {
	if v.left <= 0 {
		return 0, errTooLarge
	}
	n, err := v.in.Read(b[:min(len(b), v.left)])
	v.left -= n
	return n, err
}

// value is what a file may have: an event, a report, or the answer of microvm
// migrate-status --format json.
type value struct {
	Event  string           `json:"event"`
	Mode   string           `json:"mode"`
	Status *json.RawMessage `json:"status"`
	Report *json.RawMessage `json:"report"`
}

// Read reads a file: a report, or the events of a migration. Of several
// migrations it is the last, and if both sides are in the file, the source's.
func Read(in io.Reader) (*Record, error) {
	limited := &valueReader{in: in}
	d := json.NewDecoder(limited)
	c := collector{}
	for n := 1; ; n++ {
		limited.left = maxValue
		var raw json.RawMessage
		err := d.Decode(&raw)
		switch {
		case err == io.EOF:
			return c.result()
		case errors.Is(err, io.ErrUnexpectedEOF) && c.any():
			c.torn = true // whoever wrote it was ended
			return c.result()
		case err != nil:
			return nil, fmt.Errorf("value %d: no JSON: %w", n, err)
		}
		done, err := c.value(raw)
		if err != nil {
			return nil, fmt.Errorf("value %d: %w", n, err)
		}
		if done != nil {
			if _, err := d.Token(); err != io.EOF {
				return nil, errors.New("something follows the report")
			}
			return done, nil
		}
	}
}

// Events collects the events of a migration one by one.
type Events struct{ c collector }

// Add takes in one: a line of the log.
func (e *Events) Add(event json.RawMessage) error { return e.c.event(event) }

// Record gives what is known so far.
func (e *Events) Record() (*Record, error) { return e.c.result() }

// ReadReport makes a Record of a report alone.
func ReadReport(raw []byte) (*Record, error) {
	rep := new(migration.Report)
	if err := json.Unmarshal(raw, rep); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	if err := checkReport(rep); err != nil {
		return nil, fmt.Errorf("report: %w", err)
	}
	r := &Record{Side: migration.OwnerSource, VM: rep.VM, ID: rep.ID}
	r.setReport(rep)
	return r, nil
}

// setReport takes over what a report knows.
func (r *Record) setReport(rep *migration.Report) {
	r.Report, r.downtime, r.total = rep, rep.Downtime, rep.DowntimeNS
}

// collector sorts events by the migration that they are of.
type collector struct {
	source, destination *log
	torn                bool
}

// log is one side's events.
type log struct {
	r   Record
	of  string // the migration
	seq uint64 // of the last one that was taken in
}

func (c *collector) any() bool { return c.source != nil || c.destination != nil }

// value takes in one value of a file; if it is a report, that is the result.
func (c *collector) value(raw json.RawMessage) (*Record, error) {
	if first := bytes.TrimLeft(raw, " \t\r\n"); len(first) == 0 || first[0] != '{' {
		return nil, errors.New("neither an event nor a report: no JSON object")
	}
	var v value
	if err := json.Unmarshal(raw, &v); err != nil {
		return nil, fmt.Errorf("neither an event nor a report: %w", err)
	}
	switch {
	case v.Event != "":
		return nil, c.event(raw)
	case c.any():
		return nil, errors.New("no event, after events")
	case v.Status != nil && v.Report != nil:
		return ReadReport(*v.Report)
	case v.Status != nil:
		return nil, errors.New("a status without a report: the migration goes on; use microvm migrate-status VM --plot")
	case v.Mode != "":
		return ReadReport(raw)
	}
	return nil, errors.New("neither an event (no \"event\") nor a report (no \"mode\")")
}

func (c *collector) result() (*Record, error) {
	l := c.source
	if l == nil {
		l = c.destination
	}
	if l == nil {
		return nil, errors.New("there is no event of a migration, and no report")
	}
	r := l.r
	r.Torn = c.torn
	return &r, nil
}

// event takes in one event.
func (c *collector) event(raw json.RawMessage) error {
	var e event
	if err := json.Unmarshal(raw, &e); err != nil {
		return fmt.Errorf("event: %w", err)
	}
	var side **log
	switch e.Side {
	case migration.OwnerSource:
		side = &c.source
	case migration.OwnerDestination:
		side = &c.destination
	default:
		return fmt.Errorf("event %d: side is %.40q: has to be source or destination", e.Seq, e.Side)
	}
	if e.Seq == 0 {
		return errors.New("event: seq is 0: they are numbered from 1")
	}
	if e.ID == "" {
		return nil // a destination that waits
	}
	if *side == nil || (*side).of != e.ID {
		*side = &log{of: e.ID, r: Record{Side: e.Side, ID: clean(e.ID), Began: e.Time}}
		if other := c.other(e.Side); other != nil && other.of != e.ID {
			c.forget(e.Side)
		}
	}
	l := *side
	if e.Seq <= l.seq {
		return nil // it was told again, by migrate --resume
	}
	l.seq, l.r.VM = e.Seq, clean(e.VM)
	// A clock may be set back.
	if at := e.Time.Sub(l.r.Began); at > l.r.last && at < mostTime {
		l.r.last = at
	}
	if err := l.r.happened(&e); err != nil {
		return fmt.Errorf("event %d (%.20q): %w", e.Seq, e.Event, err)
	}
	return nil
}

// mostTime is longer than any migration takes.
const mostTime = 1000 * 24 * time.Hour

// other is the log of the other side.
func (c *collector) other(side migration.Owner) *log {
	if side == migration.OwnerSource {
		return c.destination
	}
	return c.source
}

// forget drops the other side's log, which is of an earlier migration.
func (c *collector) forget(side migration.Owner) {
	if side == migration.OwnerSource {
		c.destination = nil
	} else {
		c.source = nil
	}
}
