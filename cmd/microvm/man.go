package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

var manCommand = command{
	name:    "man",
	summary: "Print manual pages",
	usage:   "man [COMMAND] [--dir DIRECTORY]",
	about: `
Without a command it is the page of microvm itself. With --dir all of them are
written there: microvm.1, microvm-run.1, and so on.`,
	examples: []string{"microvm man migrate | man -l -", "microvm man --dir /usr/local/share/man/man1"},
	prepare: func(flags *pflag.FlagSet) runner {
		dir := flags.String("dir", "", "write all pages into this `directory`")
		return func(_ context.Context, args []string, stdout io.Writer) error {
			switch {
			case *dir != "" && len(args) == 0:
				return writeManPages(*dir)
			case *dir == "" && len(args) == 0:
				_, err := io.WriteString(stdout, mainManPage())
				return err
			case *dir == "" && len(args) == 1 && find(args[0]) != nil:
				_, err := io.WriteString(stdout, find(args[0]).manPage())
				return err
			}
			return usagef("give one command (microvm help lists them), or --dir alone")
		}
	},
}

func writeManPages(dir string) error {
	pages := map[string]string{"microvm.1": mainManPage()}
	for _, c := range commands {
		pages["microvm-"+c.name+".1"] = c.manPage()
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// manTitle begins a page.
func manTitle(name, summary string) string {
	return fmt.Sprintf(".TH %s 1 \"\" \"microvm %s\"\n.SH NAME\n%s \\- %s\n", strings.ToUpper(name), roff(readVersion().Version), roff(name), roff(summary))
}

func mainManPage() string {
	var b strings.Builder
	b.WriteString(manTitle("microvm", "run virtual machines on KVM and move them between hosts while they run"))
	b.WriteString(".SH SYNOPSIS\n.B microvm\n.I COMMAND\n.RI [ ARGUMENT ...]\n.SH COMMANDS\nEach has a page of its own.\n")
	for _, c := range commands {
		fmt.Fprintf(&b, ".TP\n.BR microvm\\-%s (1)\n%s\n", roff(c.name), roff(c.summary))
	}
	return b.String()
}

func (c *command) manPage() string {
	var b strings.Builder
	b.WriteString(manTitle("microvm-"+c.name, c.summary))
	fmt.Fprintf(&b, ".SH SYNOPSIS\nmicrovm %s\n", roff(c.usage))
	if about := strings.TrimSpace(c.about); about != "" {
		b.WriteString(".SH DESCRIPTION\n")
		for i, paragraph := range strings.Split(about, "\n\n") {
			if i > 0 {
				b.WriteString(".PP\n")
			}
			b.WriteString(roff(paragraph) + "\n")
		}
	}
	if infos := c.flagInfos(); len(infos) > 0 {
		b.WriteString(".SH OPTIONS\n")
		for _, f := range infos {
			var names []string
			for _, name := range f.names() {
				names = append(names, `\fB`+roff(name)+`\fR`)
			}
			fmt.Fprintf(&b, ".TP\n%s", strings.Join(names, ", "))
			if f.value != "" {
				fmt.Fprintf(&b, ` \fI%s\fR`, roff(f.value))
			}
			fmt.Fprintf(&b, "\n%s", roff(f.text))
			if usual := f.usual(); usual != "" {
				fmt.Fprintf(&b, " (default %s)", roff(usual))
			}
			b.WriteString("\n")
		}
	}
	if len(c.examples) > 0 {
		b.WriteString(".SH EXAMPLES\n.EX\n")
		for _, e := range c.examples {
			b.WriteString(roff(e) + "\n")
		}
		b.WriteString(".EE\n")
	}
	b.WriteString(".SH SEE ALSO\n.BR microvm (1)\n")
	return b.String()
}

// usual is the default value, if it is one that says anything.
func (f flagInfo) usual() string {
	switch f.DefValue {
	case "", "0", "0s", "false", "[]":
		return ""
	}
	return f.DefValue
}

// roff escapes what roff takes for its own, of lines of text.
func roff(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		line = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(line)
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			line = `\&` + line
		}
		lines[i] = line
	}
	return strings.Join(lines, "\n")
}
