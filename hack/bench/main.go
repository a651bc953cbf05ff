package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"microvm/guest/tiny"
)

// bench is one run of this program.
type bench struct {
	context context.Context
	pairs   int
	labMem  int // MiB of the guests that move in the lab
	microvm string
	qemu    string
	tiny    string // the tiny kernel as a file, for QEMU
	dir     string // for what is built, and the states of VMs
	log     io.Writer
}

// options are the flags.
type options struct {
	rows, out, json, microvm, tiny string
	pairs, mem, labMem             int
	list, here                     bool
}

func main() {
	var o options
	flags := pflag.NewFlagSet("bench", pflag.ContinueOnError)
	flags.StringVar(&o.rows, "rows", byDefault, "groups of rows, with commas between")
	flags.IntVar(&o.pairs, "pairs", 5, "how often each side is measured")
	flags.IntVar(&o.mem, "mem", 1024, "MiB of the guests that move")
	flags.IntVar(&o.labMem, "lab-mem", 256, "MiB of the guests that move in the lab")
	flags.StringVar(&o.out, "out", "", "folder to write table.md and figures.json to")
	flags.StringVar(&o.json, "json", "", "file to write the figures to; - is stdout, in place of the table")
	flags.StringVar(&o.microvm, "microvm", "", "the program to measure (default: built from this module)")
	flags.StringVar(&o.tiny, "tiny", "", "the tiny kernel (default: this module's)")
	flags.BoolVar(&o.list, "list", false, "list the rows and their goals")
	flags.BoolVar(&o.here, "here", false, "measure the lab's rows on this machine: its KVM can boot Linux")
	err := flags.Parse(os.Args[1:])
	if err == nil && flags.NArg() > 0 {
		err = fmt.Errorf("%q: no arguments are expected", flags.Arg(0))
	}
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(o)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options) error {
	rows := table(o.mem)
	if o.list {
		for _, r := range rows {
			fmt.Printf("%-10s %s%s\n", r.group, r.name, strings.TrimSuffix("; goal: "+r.goal, "; goal: "))
		}
		return nil
	}
	rows, err := chosen(rows, o.rows)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	b, remove, err := prepare(ctx, o)
	if err != nil {
		return err
	}
	defer remove()
	d := document{Command: commandLine(), Versions: b.versions(), Machine: thisMachine(), Pairs: o.pairs}
	d.Rows, err = b.results(rows, o.here)
	d.Machine.LoadAfter = loadAverage()
	// What was measured before an error is worth keeping.
	return errors.Join(err, d.write(o))
}

// prepare builds or finds the programs.
func prepare(ctx context.Context, o options) (b *bench, remove func(), err error) {
	dir, err := os.MkdirTemp("", "bench-")
	if err != nil {
		return nil, nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	b = &bench{context: ctx, pairs: o.pairs, labMem: o.labMem, microvm: o.microvm, tiny: o.tiny, dir: dir, log: os.Stderr}
	if b.tiny == "" {
		b.tiny = filepath.Join(dir, "tiny.elf")
		err = os.WriteFile(b.tiny, tiny.Kernel(), 0o644)
	}
	if err == nil && b.microvm == "" {
		b.microvm, err = b.build("microvm", "./cmd/microvm")
	}
	if err == nil {
		if b.qemu, err = exec.LookPath("qemu-system-x86_64"); err != nil {
			err = fmt.Errorf("%w: it is what this program is compared with; on Debian: apt-get install qemu-system-x86", err)
		}
	}
	if err != nil {
		remove()
		return nil, nil, err
	}
	return b, remove, nil
}

// build makes a static program of a package of this module.
func (b *bench) build(name, path string) (string, error) {
	out := filepath.Join(b.dir, name)
	cmd := exec.CommandContext(b.context, "go", "build", "-trimpath", "-o", out, path)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w: %s", path, err, text)
	}
	return out, nil
}

// scratch makes a folder for one run.
func (b *bench) scratch() (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(b.dir, "run-")
	return dir, func() { os.RemoveAll(dir) }, err
}

// results measures the rows.
func (b *bench) results(rows []row, here bool) ([]result, error) {
	done := map[measurement]*measured{}
	var out []result
	var lab []row
	for _, r := range rows {
		if r.of.lab() && !here {
			lab = append(lab, r)
			continue
		}
		if done[r.of] == nil {
			done[r.of] = b.measure(r)
		}
		out = append(out, fill(r, done[r.of]))
	}
	if len(lab) == 0 || b.context.Err() != nil {
		return out, b.context.Err()
	}
	theirs, err := b.inLab(lab)
	return append(out, theirs...), err
}

// versions asks the programs what they are.
func (b *bench) versions() map[side]string {
	first := func(name string, args ...string) string {
		text, err := exec.CommandContext(b.context, name, args...).Output()
		if err != nil {
			return fmt.Sprintf("%s: %v", name, err)
		}
		line, _, _ := strings.Cut(string(text), "\n")
		return line
	}
	v := map[side]string{ours: first(b.microvm, "version"), qemu: first(b.qemu, "--version")}
	if text, err := exec.CommandContext(b.context, "git", "describe", "--always", "--dirty").Output(); err == nil {
		v[ours] += ", tree " + strings.TrimSpace(string(text))
	}
	return v
}

// commandLine is how to do this again.
func commandLine() string {
	return strings.Join(slices.Concat([]string{"go run ./hack/bench"}, os.Args[1:]), " ")
}

// write writes the results to where they are wanted.
func (d *document) write(o options) error {
	figures, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	figures = append(figures, '\n')
	if o.json == "-" {
		_, err := os.Stdout.Write(figures)
		return err
	}
	if o.json != "" {
		err = os.WriteFile(o.json, figures, 0o644)
	}
	if o.out != "" {
		var text strings.Builder
		err = errors.Join(err, os.MkdirAll(o.out, 0o755), d.markdown(&text))
		err = errors.Join(err,
			os.WriteFile(filepath.Join(o.out, "table.md"), []byte(text.String()), 0o644),
			os.WriteFile(filepath.Join(o.out, "figures.json"), figures, 0o644))
	}
	return errors.Join(err, d.markdown(os.Stdout))
}
