package main

import "microvm/vmm/client"

var growCommand = command{
	name:    "grow",
	summary: "Tell a VM that the files of its disks have grown",
	usage:   "grow VM",
	about: `
Looks at the size of each disk's file or block device anew. The guest is told of
those that have become larger, and can use the space at once (its partitions and
file systems are its own to grow). A disk cannot shrink.`,
	examples: []string{"truncate -s 20G root.img && microvm grow a"},
	prepare:  within(askTime, (*client.Client).GrowDisks),
}
