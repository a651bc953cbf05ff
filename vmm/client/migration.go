package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"microvm/migration"
	"microvm/vmm"
)

// Migrate asks the VM to leave, calls progress with each status that comes,
// and returns the last event: the one with the report, or the first if the
// request said Detach. An error means that the migration did not begin, or
// that nobody knows how it ended.
func (c *Client) Migrate(ctx context.Context, r vmm.MigrateRequest, progress func(migration.Status)) (vmm.MigrationEvent, error) {
	if len(r.Passed) > 0 {
		with := c.passing(r.Passed)
		defer with.http.CloseIdleConnections()
		c = with
	}
	return c.followMigration(ctx, http.MethodPost, "/v1/vm/migration", r, r.Detach, progress)
}

// ResumeMigration takes the VM's migration up that is paused. It is Migrate in
// all else.
func (c *Client) ResumeMigration(ctx context.Context, r vmm.ResumeMigrationRequest, progress func(migration.Status)) (vmm.MigrationEvent, error) {
	return c.followMigration(ctx, http.MethodPost, "/v1/vm/migration/resume", r, r.Detach, progress)
}

// WatchMigration calls progress with each status of the VM's last migration,
// and returns the event at its end.
func (c *Client) WatchMigration(ctx context.Context, progress func(migration.Status)) (vmm.MigrationEvent, error) {
	path := "/v1/vm/migration/events"
	if c.OnEvent != nil {
		path += "?log=true"
	}
	return c.followMigration(ctx, http.MethodGet, path, nil, false, progress)
}

// followMigration makes a call that answers with events, and returns the one
// with the report, or the first.
func (c *Client) followMigration(ctx context.Context, method, path string, request any, first bool, progress func(migration.Status)) (vmm.MigrationEvent, error) {
	var body io.Reader
	if request != nil {
		text, err := json.Marshal(request)
		if err != nil {
			return vmm.MigrationEvent{}, err
		}
		body = bytes.NewReader(text)
	}
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return vmm.MigrationEvent{}, err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxReply)
	for in.Scan() {
		var e vmm.MigrationEvent
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return vmm.MigrationEvent{}, fmt.Errorf("VM %s: migration event: %w", c.Instance.Name, err)
		}
		if e.Event != nil {
			if c.OnEvent != nil {
				c.OnEvent(e.Event)
			}
			continue
		}
		if e.Error != nil {
			e.Error.Classify() // as in send
		}
		if e.Report != nil || first {
			return e, nil
		}
		progress(e.Status)
	}
	err = in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return vmm.MigrationEvent{}, fmt.Errorf("VM %s: its process does not answer any more, the migration may go on or not: %w", c.Instance.Name, err)
}

// Migration describes the VM's last migration away from here.
func (c *Client) Migration(ctx context.Context) (vmm.MigrationEvent, error) {
	var e vmm.MigrationEvent
	err := c.Do(ctx, http.MethodGet, "/v1/vm/migration", nil, &e)
	return e, err
}

// CancelMigration calls the VM's migration off.
func (c *Client) CancelMigration(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/v1/vm/migration", nil, nil)
}

// MigrationLog calls each with the events of the VM's last migration so far.
func (c *Client) MigrationLog(ctx context.Context, each func(json.RawMessage)) error {
	resp, err := c.send(ctx, http.MethodGet, "/v1/vm/migration/log", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	in := json.NewDecoder(resp.Body)
	for {
		var e json.RawMessage
		if err := in.Decode(&e); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("VM %s: migration log: %w", c.Instance.Name, err)
		}
		each(e)
	}
}

// TakeBackMigration has a VM run on here whose destination never ran it: see
// [vmm.TakeBackRequest].
func (c *Client) TakeBackMigration(ctx context.Context, r vmm.TakeBackRequest) error {
	return c.Do(ctx, http.MethodPost, "/v1/vm/migration/take-back", r, nil)
}
