package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"microvm/hack/lab/labvm"
)

// Where the programs lie in the lab.
const (
	labBench   = "/bin/bench"
	labMicroVM = "/bin/microvm"
	labTiny    = "/root/tiny.elf"
)

// inLab has rows measured by this program in the lab, and gives their results.
func (b *bench) inLab(rows []row) ([]result, error) {
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
	var groups []string
	for _, r := range rows {
		if !slices.Contains(groups, r.group) {
			groups = append(groups, r.group)
		}
	}
	var out bytes.Buffer
	status, err := pieces.Run(b.context, labvm.Options{
		Command: []string{labBench, "--here", "--rows", strings.Join(groups, ","), "--pairs", strconv.Itoa(b.pairs),
			"--mem", strconv.Itoa(b.labMem), "--microvm", labMicroVM, "--tiny", labTiny, "--json", "-"},
		Files:   []labvm.File{{Host: self, Guest: labBench}, {Host: b.microvm, Guest: labMicroVM}, {Host: b.tiny, Guest: labTiny}},
		Modules: []string{"sch_netem"}, QEMU: true, Stdout: &out, Stderr: b.log,
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
