package client

import (
	"context"
	"net/http"

	"microvm/migration"
	"microvm/vmm"
)

// Snapshot has the VM written to r.Files, which it takes over. The VM ends then, unless
// the request says otherwise; on an error, as when ctx ends, it is as it was.
func (c *Client) Snapshot(ctx context.Context, r vmm.SnapshotRequest) (migration.SaveReport, error) {
	var rep migration.SaveReport
	with := c.passing(r.Files.List())
	defer r.Files.Close()
	defer with.http.CloseIdleConnections()
	err := with.Do(ctx, http.MethodPost, "/v1/vm/snapshot", r, &rep)
	return rep, err
}
