package main

import "microvm/vmm/client"

var resumeCommand = command{
	name:     "resume",
	summary:  "Let a paused VM run on",
	usage:    "resume VM",
	examples: []string{"microvm resume a"},
	prepare:  within(pauseTime, (*client.Client).Resume),
}
