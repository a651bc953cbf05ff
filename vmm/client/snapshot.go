package client

import (
	"context"
	"net/http"

	"microvm/migration"
	"microvm/vmm"
)

// Snapshot has the VM written to r.Files, which it takes over. The VM ends then, unless
// the request says otherwise; on an error it is as it was, or will be so soon if ctx has
// ended.
func (c *Client) Snapshot(ctx context.Context, r vmm.SnapshotRequest) (migration.SaveReport, error) {
	var rep migration.SaveReport
	with := c.passing(r.Files.List())
	defer r.Files.Close()
	defer with.http.CloseIdleConnections()
	err := with.Do(ctx, http.MethodPost, "/v1/vm/snapshot", r, &rep)
	return rep, err
}

// CancelSnapshot calls the VM's snapshot off that is being made, and returns when the VM
// is as it was.
func (c *Client) CancelSnapshot(ctx context.Context) error {
	return c.Do(ctx, http.MethodDelete, "/v1/vm/snapshot", nil, nil)
}
