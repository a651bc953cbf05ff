package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"microvm/vmm"
	"microvm/vmm/client"
)

var balloonCommand = command{
	name:    "balloon",
	summary: "Take memory from a VM, or give it back",
	usage:   "balloon VM [SIZE|PERCENT%]",
	about: `
SIZE, or PERCENT of the VM's memory, is how much of it the guest is to do without:
its balloon driver takes so much from the guest, and the host has it until the
balloon is made smaller. 0 gives all of it back. It takes the guest a while, and it
may not have so much to give.

Without SIZE it describes the balloon as JSON: what it is to hold and does hold,
what the host has been given, and the guest's own figures of its memory.

The VM has to have a balloon (microvm run --balloon) and its guest a driver of it
(Linux: virtio_balloon). While the VM migrates the size stays as it is.`,
	examples: []string{"microvm balloon a 512M", "microvm balloon a 25%", "microvm balloon a 0", "microvm balloon a"},
	prepare: func(*pflag.FlagSet) runner {
		return func(ctx context.Context, args []string, stdout io.Writer) error {
			if len(args) != 1 && len(args) != 2 {
				return usagef("give the name of one VM, and perhaps a size")
			}
			var want func(memory uint64) uint64
			if len(args) == 2 {
				var err error
				if want, err = parseShare(args[1]); err != nil {
					return usagef("%v", err)
				}
			}
			c, err := client.Dial(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, askTime)
			defer cancel()
			if want == nil {
				stats, err := c.Balloon(ctx)
				if err != nil {
					return err
				}
				return printJSON(stdout, stats)
			}
			info, err := c.Info(ctx)
			if err != nil {
				return err
			}
			return c.SetBalloon(ctx, want(info.Memory))
		}
	},
}

// parseShare reads a size, or a percentage of something.
func parseShare(text string) (func(of uint64) uint64, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent >= 0 && percent <= 100) {
			return nil, fmt.Errorf("%q is not a percentage from 0%% to 100%%", text)
		}
		return func(of uint64) uint64 { return uint64(float64(of) * percent / 100) }, nil
	}
	var n size
	if err := n.Set(text); err != nil {
		return nil, fmt.Errorf("%w, nor a percentage such as 25%%", err)
	}
	return func(uint64) uint64 { return uint64(n) }, nil
}

// parseBalloon reads [SIZE][,deflate-on-oom][,free-page-reporting].
func parseBalloon(text string) (*vmm.BalloonConfig, error) {
	c := &vmm.BalloonConfig{}
	for i, option := range strings.Split(text, ",") {
		switch {
		case option == "deflate-on-oom":
			c.DeflateOnOOM = true
		case option == "free-page-reporting":
			c.FreePageReporting = true
		case i == 0 && option != "":
			var n size
			if err := n.Set(option); err != nil {
				return nil, err
			}
			c.Size = uint64(n)
		case i > 0:
			return nil, fmt.Errorf("option %q: unknown; there are deflate-on-oom and free-page-reporting", option)
		}
	}
	return c, nil
}
