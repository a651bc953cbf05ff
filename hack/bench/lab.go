package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"microvm/hack/lab/labvm"
)

// Where the programs lie in the lab.
const (
	labBench   = "/bin/bench"
	labMicroVM = "/bin/microvm"
	labTiny    = "/root/tiny.elf"
)

// inLab has rows measured by this program in the lab, one lab for each group, and gives their results.
func (b *bench) inLab(rows []row) ([]result, error) {
	var out []result
	var errs []error
	for len(rows) > 0 {
		group := rows[0].group
		theirs, err := b.groupInLab(group)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", group, err))
		}
		out = append(out, theirs...)
		rows = slices.DeleteFunc(rows, func(r row) bool { return r.group == group })
	}
	return out, errors.Join(errs...)
}

func (b *bench) groupInLab(group string) ([]result, error) {
	self, err := b.build("bench", "./hack/bench")
	if err != nil {
		return nil, err
	}
	cache, err := labvm.CacheDir()
	if err != nil {
		return nil, err
	}
	pieces, err := labvm.EnsurePieces(cache, b.log)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	var env, disks []string
	modules := []string{"sch_netem"}
	if group == "disk" || group == "network" {
		root, err := labvm.RootImage(cache, b.log)
		if err != nil {
			return nil, err
		}
		modules, disks = append(modules, "brd", "tun"), []string{root}
		env = []string{labvm.EnvGuestRoot + "=/dev/vda", dataDisks + "=/dev/ram0,/dev/ram1"}
	}
	status, err := pieces.Run(b.context, labvm.Options{
		Command: []string{labBench, "--here", "--rows", group, "--pairs", strconv.Itoa(b.pairs),
			"--mem", strconv.Itoa(b.labMem), "--microvm", labMicroVM, "--tiny", labTiny, "--json", "-"},
		Files: []labvm.File{{Host: self, Guest: labBench}, {Host: b.microvm, Guest: labMicroVM}, {Host: b.tiny, Guest: labTiny}},
		Env:   env, Disks: disks, Modules: modules, QEMU: true, Stdout: &out, Stderr: b.log,
	})
	if err != nil {
		return nil, err
	}
	if status != 0 {
		return nil, fmt.Errorf("bench ended in the lab with status %d", status)
	}
	var d document
	if err := json.Unmarshal(out.Bytes(), &d); err != nil {
		return nil, fmt.Errorf("what bench said in the lab: %w: %s", err, out.Bytes())
	}
	for i := range d.Rows {
		d.Rows[i].Where = fmt.Sprintf("in the lab (%d MiB)", b.labMem)
	}
	return d.Rows, nil
}
