package main

import (
	"context"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

// ofTakeBack are the flags that --take-back goes with.
var ofTakeBack = []string{"take-back", "force"}

// takeBack is migrate with --take-back.
func takeBack(ctx context.Context, flags *pflag.FlagSet, args []string, force bool) error {
	if other := otherThan(flags, ofTakeBack); other != "" {
		return usagef("--take-back and --%s exclude each other: nothing moves", other)
	}
	name, err := oneVM(args)
	if err != nil {
		return err
	}
	c, err := client.Dial(name)
	if err != nil {
		return err
	}
	if err := c.TakeBackMigration(ctx, vmm.TakeBackRequest{Force: force}); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "microvm migrate: VM %s is here again\n", name)
	return nil
}
