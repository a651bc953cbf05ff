package vmm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"microvm/migration"
)

// Migrate asks the VM to leave, calls progress with each status that comes,
// and returns the last event: the one with the report, or the first if the
// request said Detach. An error means that the migration did not begin, or
// that nobody knows how it ended.
func (c *Client) Migrate(ctx context.Context, r MigrateRequest, progress func(migration.Status)) (MigrationEvent, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return MigrationEvent{}, err
	}
	resp, err := c.send(ctx, http.MethodPost, "/v1/vm/migration", bytes.NewReader(body))
	if err != nil {
		return MigrationEvent{}, err
	}
	defer resp.Body.Close()
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, maxReply)
	for in.Scan() {
		var e MigrationEvent
		if err := json.Unmarshal(in.Bytes(), &e); err != nil {
			return MigrationEvent{}, fmt.Errorf("VM %s: migration event: %w", c.Instance.Name, err)
		}
		if e.Report != nil || r.Detach {
			return e, nil
		}
		progress(e.Status)
	}
	err = in.Err()
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	return MigrationEvent{}, fmt.Errorf("VM %s: its process does not answer any more, the migration may go on or not: %w", c.Instance.Name, err)
}

// Migration describes the VM's last migration away from here.
func (c *Client) Migration(ctx context.Context) (MigrationEvent, error) {
	var e MigrationEvent
	err := c.Do(ctx, http.MethodGet, "/v1/vm/migration", nil, &e)
	return e, err
}

// CancelMigration calls the VM's migration off.
func (c *Client) CancelMigration(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/v1/vm/migration", nil, nil)
}
