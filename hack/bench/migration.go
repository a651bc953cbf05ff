package main

import "fmt"

// migration moves a guest from one process to another on this machine, over the loopback's TCP.
type migration struct {
	mode        string // postcopy, hybrid or precopy
	cpus        int
	mem         int  // of the guest, in MiB
	rate        int  // pages that each of its vCPUs writes a second; 0: as fast as it can
	connections int  // 0: as many as the side has by default
	idle        bool // the guest does nothing
}

func (m migration) lab() bool { return false }

func (m migration) sample(b *bench, s side) (figures, error) {
	f, err := b.migrate(m, s)
	if err != nil {
		return nil, err
	}
	if f["requests"] > 0 {
		f["wait"] = f["blocktime"] / f["requests"]
	}
	if s == qemu {
		// QEMU keeps no account of single faults before 10.2. In its place stands what nobody can do without: a request
		// and a page in answer, on an idle connection.
		f["p50"], f["p99"], err = roundTrips()
		if err != nil {
			return nil, err
		}
	}
	f["rate"] = float64(m.mem) * (1 << 20) / (f["total"] / 1e9)
	return f, nil
}

func (b *bench) migrate(m migration, s side) (figures, error) {
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	if s == ours {
		return b.migrateOurs(m, dir)
	}
	return b.migrateQEMU(m, dir)
}

// name is for messages.
func (m migration) String() string {
	text := fmt.Sprintf("%s, %d MiB, %d vCPUs", m.mode, m.mem, m.cpus)
	if m.connections > 0 {
		text += fmt.Sprintf(", %d connections", m.connections)
	}
	return text
}
