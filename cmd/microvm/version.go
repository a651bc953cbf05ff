package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/pflag"
)

var versionCommand = command{
	name:     "version",
	summary:  "Print the version",
	usage:    "version [--format text|json]",
	examples: []string{"microvm version --format json"},
	prepare: func(flags *pflag.FlagSet) runner {
		format := flags.String("format", "text", "text or json")
		return func(_ context.Context, args []string, stdout io.Writer) error {
			if err := noArguments(args); err != nil {
				return err
			}
			if err := checkFormat(*format, "text"); err != nil {
				return err
			}
			v := readVersion()
			if *format == "json" {
				return printJSON(stdout, v)
			}
			fmt.Fprintf(stdout, "microvm %s (commit %s, %s)\n", v.Version, v.Commit, v.Go)
			return nil
		}
	},
}

// text is what people are shown of it.
func (v version) text() string { return fmt.Sprintf("%s (commit %s)", v.Version, v.Commit) }

// version is what the program was built from.
type version struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}

func readVersion() version {
	v := version{Version: "unknown", Commit: "unknown", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Commit = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				v.Commit += "+changes"
			}
		}
	}
	return v
}
