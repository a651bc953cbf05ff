package main

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// memory is what a process needs beyond the memory of the guest that it runs, which idles.
type memory struct{ mem int }

func (m memory) lab() bool { return false }

func (m memory) sample(b *bench, s side) (figures, error) {
	const idle = "work=idle beat=100"
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	var p *process
	if s == ours {
		p, err = start(b.context, []string{"MICROVM_STATE_DIR=" + dir}, b.microvm, "run", "-m", fmt.Sprintf("%dM", m.mem), "-p", idle)
	} else {
		p, err = start(b.context, nil, b.qemu, qemuArgs(b.tiny, idle, 1, m.mem)...)
	}
	if err != nil {
		return nil, err
	}
	defer p.end()
	if err := awaitWork(p); err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/proc/%d/smaps", p.cmd.Process.Pid)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := beyondGuest(string(text), uint64(m.mem)<<20)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return f, nil
}

// mapping is what is read of one entry of /proc/PID/smaps, in bytes.
type mapping struct {
	writable             bool
	size, rss, anonymous uint64
}

// beyondGuest adds up an smaps without the guest's RAM, which is the smallest writable mapping that holds so many bytes.
func beyondGuest(smaps string, guest uint64) (figures, error) {
	all, err := parseSmaps(smaps)
	if err != nil {
		return nil, err
	}
	ram := -1
	var rss, anonymous uint64
	for i, m := range all {
		rss += m.rss
		anonymous += m.anonymous
		if m.writable && m.size >= guest && (ram < 0 || m.size < all[ram].size) {
			ram = i
		}
	}
	if ram < 0 {
		return nil, fmt.Errorf("none of %d mappings is large enough for the guest's %d bytes", len(all), guest)
	}
	return figures{
		"beyond": float64(rss - all[ram].rss), "anonymous": float64(anonymous - all[ram].anonymous), "guest": float64(all[ram].rss),
	}, nil
}

func parseSmaps(text string) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(strings.NewReader(text))
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		name, isField := strings.CutSuffix(words[0], ":")
		if !isField { // START-END PERMISSIONS OFFSET ...
			all = append(all, mapping{writable: strings.HasPrefix(words[1], "rw")})
			continue
		}
		if len(all) == 0 {
			return nil, fmt.Errorf("%q before any mapping", lines.Text())
		}
		m := &all[len(all)-1]
		field := map[string]*uint64{"Size": &m.size, "Rss": &m.rss, "Anonymous": &m.anonymous}[name]
		if field == nil {
			continue
		}
		kib, err := strconv.ParseUint(words[1], 10, 54)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		*field = kib << 10
	}
	return all, lines.Err()
}
