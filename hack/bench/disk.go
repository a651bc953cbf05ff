package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// disk is what a Linux guest gets out of a virtio disk, by fio, with O_DIRECT in the guest and on the host. The disk
// with Debian on it is where fio comes from.
type disk struct{}

// dataDisks are block devices or files that may be written over, one for each side, with a comma between: what is measured.
// Without it new files are.
const dataDisks = "MICROVM_BENCH_DISKS"

func (disk) lab() bool { return true }

// diskRows are fio's jobs: what it does, the size of a block, how many are under way.
func diskRows() (rows []row) {
	for _, kind := range []struct{ rw, name string }{{"randread", "reads"}, {"randwrite", "writes"}} {
		for _, depth := range []int{1, 32} {
			rows = append(rows, row{"disk", fmt.Sprintf("disk: 4 KiB %s at random, depth %d", kind.name, depth), disk{},
				fmt.Sprintf("%s:4k:%d", kind.rw, depth), perSecond, "1.0x"})
		}
	}
	for _, kind := range []struct{ rw, name string }{{"read", "reads"}, {"write", "writes"}} {
		rows = append(rows, row{"disk", fmt.Sprintf("disk: 1 MiB %s in order, depth 4", kind.name), disk{}, kind.rw + ":1M:4", megabytes, "1.0x"})
	}
	return rows
}

func (disk) jobs() (names []string) {
	for _, r := range diskRows() {
		names = append(names, r.get)
	}
	return names
}

func (disk) begin(b *bench, s side) (worker, error) {
	data, err := dataDisk(b, s)
	if err != nil {
		return nil, err
	}
	w, err := startDebian(b, s, "mv.job=fio", map[side][]string{
		ours: {"--disk", data + ",serial=data"},
		qemu: {"-drive", "if=none,id=data,format=raw,cache=none,aio=io_uring,file=" + data, "-device", "virtio-blk-device,drive=data,serial=data"},
	})
	if err != nil {
		return nil, err
	}
	return diskWorker{w}, nil
}

func dataDisk(b *bench, s side) (string, error) {
	if given := os.Getenv(dataDisks); given != "" {
		first, second, ok := strings.Cut(given, ",")
		if !ok || first == second {
			return "", fmt.Errorf("%s=%s: it has to be two, A,B", dataDisks, given)
		}
		return map[side]string{ours: first, qemu: second}[s], nil
	}
	data := filepath.Join(b.dir, string(s)+".img")
	return data, os.WriteFile(data, make([]byte, 64<<20), 0o600)
}

type diskWorker struct{ debianWorker }

// do gives the rate of a job of blocks of 1 MiB in bytes, of the others in requests.
func (w diskWorker) do(job string) (float64, error) {
	f, err := w.ask(job, 2)
	if err != nil {
		return 0, err
	}
	if strings.HasPrefix(job, "rand") {
		return f[1], nil
	}
	return f[0] * 1024, nil
}
