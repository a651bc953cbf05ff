package main

import (
	"fmt"
	"path/filepath"
	"strconv"
	"time"
)

const (
	// downtimeLimit is what precopy may take to stop the guest, on both sides.
	downtimeLimit = 300 * time.Millisecond
	// hybridAfter is how long QEMU copies before it is switched to postcopy: it does not switch by itself.
	hybridAfter = time.Second
	// unlimited is a bandwidth that no link has, in bytes a second.
	unlimited = 100 << 30
)

// qemuArgs are the arguments for a machine of QEMU's that is as small as ours.
func qemuArgs(kernel, cmdline string, cpus, mem int) []string {
	return []string{
		"-M", "microvm,rtc=off,isa-serial=on", "-accel", "kvm", "-cpu", "host",
		"-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio",
		"-smp", strconv.Itoa(cpus), "-m", strconv.Itoa(mem), "-kernel", kernel, "-append", cmdline,
	}
}

// qemuVM is a QEMU with its monitor.
type qemuVM struct {
	*process
	qmp *qmp
}

func (b *bench) startQEMU(dir, name string, args []string) (*qemuVM, error) {
	socket := filepath.Join(dir, name+".qmp")
	args = append(args, "-qmp", "unix:"+socket+",server=on,wait=off")
	p, err := start(b.context, nil, b.qemu, args...)
	if err != nil {
		return nil, err
	}
	q, err := dialQMP(socket)
	if err != nil {
		p.end()
		return nil, fmt.Errorf("%w: %s", err, p.last())
	}
	return &qemuVM{p, q}, nil
}

func (v *qemuVM) end() {
	v.qmp.conn.Close()
	v.process.end()
}

// migrateQEMU runs one migration between two processes of QEMU.
func (b *bench) migrateQEMU(m migration, dir string) (figures, error) {
	args := qemuArgs(b.tiny, guestWork(m), m.cpus, m.mem)
	source, err := b.startQEMU(dir, "a", args)
	if err != nil {
		return nil, err
	}
	defer source.end()
	if err := ready(source.process, m.mem); err != nil {
		return nil, err
	}
	destination, err := b.startQEMU(dir, "b", append(args, "-incoming", "defer"))
	if err != nil {
		return nil, err
	}
	defer destination.end()
	address, err := prepareQEMU(m, source.qmp, destination.qmp)
	if err != nil {
		return nil, err
	}
	before, err := cpuTime(source.process, destination.process)
	if err != nil {
		return nil, err
	}
	info, err := runQEMU(m, source.qmp, address)
	if err != nil {
		return nil, err
	}
	after, err := cpuTime(source.process, destination.process)
	if err != nil {
		return nil, err
	}
	if err := awaitLife(destination.process); err != nil {
		return nil, fmt.Errorf("after the migration: %w", err)
	}
	there, err := destination.qmp.migration()
	if err != nil {
		return nil, err
	}
	const ms = 1e6
	f := figures{
		"total": info.TotalTime * ms, "downtime": info.Downtime * ms, "blocktime": there.Blocktime * ms,
		"requests": info.RAM.Requests, "wire": info.RAM.Transferred, "postcopy": info.TotalTime * ms,
		"cpu": after - before,
	}
	if info.Downtime > info.TotalTime {
		delete(f, "downtime") // QEMU 7.2 now and then takes it from a clock that it had not read yet
	}
	return f, nil
}

// prepareQEMU sets both sides up and has the destination listen.
func prepareQEMU(m migration, source, destination *qmp) (address string, err error) {
	there := []string{"postcopy-ram", "postcopy-preempt", "postcopy-blocktime"}
	here := there[:2]
	parameters := map[string]any{
		"max-bandwidth": unlimited, "max-postcopy-bandwidth": unlimited, "downtime-limit": downtimeLimit.Milliseconds(),
	}
	if m.mode == "precopy" {
		here, there = nil, nil
	}
	if m.connections > 1 && m.mode == "precopy" { // its postcopy does not take multifd
		here, there = append(here, "multifd"), append(there, "multifd")
		parameters["multifd-channels"] = m.connections
	}
	for q, names := range map[*qmp][]string{source: here, destination: there} {
		if len(names) > 0 {
			if err := q.capabilities(names...); err != nil {
				return "", err
			}
		}
		if err := q.do("migrate-set-parameters", parameters, nil); err != nil {
			return "", err
		}
	}
	if err := destination.do("migrate-incoming", map[string]string{"uri": "tcp:127.0.0.1:0"}, nil); err != nil {
		return "", err
	}
	var listening struct {
		Addresses []struct{ Host, Port string } `json:"socket-address"`
	}
	if err := destination.do("query-migrate", nil, &listening); err != nil {
		return "", err
	}
	if len(listening.Addresses) == 0 {
		return "", fmt.Errorf("QEMU does not say where it listens")
	}
	return "tcp:127.0.0.1:" + listening.Addresses[0].Port, nil
}

// runQEMU migrates to address.
func runQEMU(m migration, source *qmp, address string) (info migrationInfo, err error) {
	if err := source.do("migrate", map[string]string{"uri": address}, nil); err != nil {
		return info, err
	}
	if m.mode == "hybrid" {
		time.Sleep(hybridAfter)
	}
	if m.mode != "precopy" {
		if err := source.do("migrate-start-postcopy", nil, nil); err != nil {
			return info, err
		}
	}
	err = within("QEMU's migration", func() (bool, error) {
		if info, err = source.migration(); err != nil {
			return false, err
		}
		switch info.Status {
		case "failed", "cancelled", "postcopy-paused":
			return false, fmt.Errorf("QEMU's migration: %s: %s", info.Status, info.ErrorDesc)
		}
		return info.Status == "completed", nil
	})
	return info, err
}
