package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// disk is what a Linux guest gets out of a virtio disk, by fio, with O_DIRECT in the guest and on the host. The disk
// with Debian on it is where fio comes from.
type disk struct{}

// dataDisk names a block device or file that may be written over: what is measured. Without it a new file is.
const dataDisk = "MICROVM_BENCH_DISK"

func (disk) lab() bool { return true }

// diskRows are fio's jobs, by the names that guest.sh gives them.
func diskRows() (rows []row) {
	for _, kind := range []struct{ rw, name string }{{"randread", "reads"}, {"randwrite", "writes"}} {
		for _, depth := range []int{1, 32} {
			rows = append(rows, row{"disk", fmt.Sprintf("disk: 4 KiB %s at random, depth %d", kind.name, depth), disk{},
				fmt.Sprintf("%s-%d", kind.rw, depth), perSecond, "1.0x"})
		}
	}
	for _, kind := range []struct{ rw, name string }{{"read", "reads"}, {"write", "writes"}} {
		rows = append(rows, row{"disk", fmt.Sprintf("disk: 1 MiB %s in order, depth 4", kind.name), disk{}, kind.rw + "-4", megabytes, "1.0x"})
	}
	return rows
}

func (disk) sample(b *bench, s side) (figures, error) {
	guest, err := findDebianGuest()
	if err != nil {
		return nil, err
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	data := os.Getenv(dataDisk)
	if data == "" {
		data = filepath.Join(dir, "data.img")
		if err := os.WriteFile(data, make([]byte, 64<<20), 0o600); err != nil {
			return nil, err
		}
	}
	lines, err := guest.run(b, s, dir, "fio", "fio end", map[side][]string{
		ours: {"--disk", data + ",serial=data"},
		qemu: {"-drive", "if=none,id=data,format=raw,cache=none,aio=io_uring,file=" + data, "-device", "virtio-blk-device,drive=data,serial=data"},
	})
	if err != nil {
		return nil, err
	}
	return fioFigures(lines)
}

// fioFigures reads the lines "fio NAME KIB_PER_SECOND PER_SECOND" of guest.sh. A job of blocks of 1 MiB is told by its
// bytes, the others by their requests.
func fioFigures(lines []string) (figures, error) {
	f := figures{}
	for _, line := range lines {
		words := strings.Fields(line)
		if len(words) != 4 || words[0] != "fio" {
			continue
		}
		rate, err := strconv.ParseFloat(words[2], 64)
		if err == nil && strings.HasPrefix(words[1], "rand") {
			rate, err = strconv.ParseFloat(words[3], 64)
		} else {
			rate *= 1024
		}
		if err != nil || rate == 0 {
			return nil, fmt.Errorf("fio in the guest: %q", line)
		}
		f[words[1]] = rate
	}
	return f, nil
}
