package client

import (
	"context"
	"net/http"

	"microvm/migration"
	"microvm/vmm"
)

// CheckMigration asks what would stop the VM from leaving as r says. Nothing
// moves.
func (c *Client) CheckMigration(ctx context.Context, r vmm.MigrateRequest) (migration.Outlook, error) {
	var found migration.Outlook
	err := c.Do(ctx, http.MethodPost, "/v1/vm/migration/check", r, &found)
	return found, err
}
