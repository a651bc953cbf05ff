package main

import (
	"fmt"
	"strings"
)

func fishCompletion() string {
	var b strings.Builder
	b.WriteString(`# fish completion for microvm, written by: microvm completion fish

complete -c microvm -f
`)
	for _, c := range commands {
		fmt.Fprintf(&b, "complete -c microvm -n __fish_use_subcommand -a %s -d %s\n", c.name, fishQuote(c.summary))
		fmt.Fprintf(&b, "complete -c microvm -n '__fish_seen_subcommand_from help' -a %s\n", c.name)
	}
	b.WriteString("complete -c microvm -n __fish_use_subcommand -a help -d 'Say more about a command'\n")
	for _, c := range commands {
		with := "complete -c microvm -n '__fish_seen_subcommand_from " + c.name + "'"
		for _, f := range c.flagInfos() {
			fmt.Fprintf(&b, "%s -l %s", with, f.Name)
			if f.Shorthand != "" {
				fmt.Fprintf(&b, " -s %s", f.Shorthand)
			}
			switch {
			case f.takesFile():
				b.WriteString(" -r -F")
			case f.value != "":
				b.WriteString(" -x")
			}
			fmt.Fprintf(&b, " -d %s\n", fishQuote(f.text))
		}
		if c.takesVM() {
			fmt.Fprintf(&b, "%s -a '(microvm ps -q 2> /dev/null)'\n", with)
		}
	}
	return b.String()
}

// fishQuote makes one word of a text.
func fishQuote(text string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(text) + "'"
}
