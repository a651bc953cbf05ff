package main

import (
	"context"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
)

var completionCommand = command{
	name:    "completion",
	summary: "Print a script that completes command lines",
	usage:   "completion bash|zsh|fish",
	about: `
The script knows the commands, their flags, and, by asking microvm ps, the VMs.`,
	examples: []string{
		"source <(microvm completion bash)",
		"microvm completion zsh > ~/.zsh/completions/_microvm",
		"microvm completion fish > ~/.config/fish/completions/microvm.fish",
	},
	prepare: func(*pflag.FlagSet) runner {
		return func(_ context.Context, args []string, stdout io.Writer) error {
			if len(args) != 1 || shells[args[0]] == nil {
				return usagef("give one shell: bash, zsh or fish")
			}
			_, err := io.WriteString(stdout, shells[args[0]]())
			return err
		}
	},
}

// shells write the script for each.
var shells = map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}

// takesVM tells whether the command's arguments begin with a VM.
func (c *command) takesVM() bool { return slices.Contains(strings.Fields(c.usage), "VM") }

// A flagInfo is what a shell, or a manual page, needs to know of a flag.
type flagInfo struct {
	*pflag.Flag
	value string // what its value is called; empty of one that takes none
	text  string
}

func (c *command) flagInfos() (infos []flagInfo) {
	flags, _ := c.flagSet()
	flags.VisitAll(func(f *pflag.Flag) {
		value, text := pflag.UnquoteUsage(f)
		if f.NoOptDefVal != "" {
			value = ""
		}
		infos = append(infos, flagInfo{f, value, text})
	})
	return infos
}

// names are how the flag is written, the long one first.
func (f flagInfo) names() []string {
	if f.Shorthand == "" {
		return []string{"--" + f.Name}
	}
	return []string{"--" + f.Name, "-" + f.Shorthand}
}

// takesFile tells whether the value is, or begins with, a file of this host.
func (f flagInfo) takesFile() bool {
	return slices.Contains([]string{"path", "file", "directory"}, f.value)
}

// commandNames are all that can come first.
func commandNames() []string {
	names := []string{"help"}
	for _, c := range commands {
		names = append(names, c.name)
	}
	return names
}
