package main

import (
	"bytes"
	"compress/gzip"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

func main() {
	flags := pflag.NewFlagSet("release", pflag.ContinueOnError)
	program := flags.String("program", "bin/microvm", "the built program")
	out := flags.String("out", "", "the folder to write to")
	err := flags.Parse(os.Args[1:])
	if errors.Is(err, pflag.ErrHelp) {
		return
	}
	if err == nil && (*out == "" || flags.NArg() > 0) {
		err = errors.New("say --out DIRECTORY, and no arguments")
	}
	if err == nil {
		err = write(*program, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

// write puts everything into out, which is made if it is not there.
func write(program, out string) error {
	program, err := filepath.Abs(program)
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("%s: %w; build it with Go", program, err)
	}
	for _, dir := range []string{"man", "completion"} {
		if err := os.MkdirAll(filepath.Join(out, dir), 0o755); err != nil {
			return err
		}
	}
	if err := manPages(program, filepath.Join(out, "man")); err != nil {
		return err
	}
	for shell, name := range map[string]string{"bash": "microvm", "zsh": "_microvm", "fish": "microvm.fish"} {
		script, err := printed(program, "completion", shell)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(out, "completion", name), script, 0o644); err != nil {
			return err
		}
	}
	sbom, err := json.MarshalIndent(newSBOM(info), "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(out, "microvm.spdx.json"), append(sbom, '\n'), 0o644); err != nil {
		return err
	}
	licences, err := licences(info)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(out, "LICENSES"), licences, 0o644)
}

// manPages has the program write its pages, and compresses them as packages have them: without name or time.
func manPages(program, dir string) error {
	if _, err := printed(program, "man", "--dir", dir); err != nil {
		return err
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) == 0 {
		return errors.Join(err, fmt.Errorf("%s man --dir %s wrote no page", program, dir))
	}
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			return err
		}
		var packed bytes.Buffer
		z, err := gzip.NewWriterLevel(&packed, gzip.BestCompression)
		if err == nil {
			_, err = z.Write(text)
		}
		if err = errors.Join(err, z.Close(), os.WriteFile(page+".gz", packed.Bytes(), 0o644), os.Remove(page)); err != nil {
			return err
		}
	}
	return nil
}

// printed is what the program prints on stdout.
func printed(program string, args ...string) ([]byte, error) {
	out, err := exec.Command(program, args...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", program, strings.Join(args, " "), err)
	}
	return out, nil
}
