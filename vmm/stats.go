package vmm

import (
	"net/http"
	"sync/atomic"
	"time"

	"microvm/kvm"
)

// Stats is what a VM has counted since it came to this host.
type Stats struct {
	// Uptime is how long the VM's process has been there, in nanoseconds: two
	// Stats and their difference give rates.
	Uptime  time.Duration `json:"uptime_ns"`
	VCPUs   []VCPUStats   `json:"vcpus"`
	Devices []DeviceInfo  `json:"devices"`
}

// VCPUStats counts a vCPU's exits to this program, by reason. What KVM handles
// by itself is not among them.
type VCPUStats struct {
	PortIO uint64 `json:"port_io"`
	MMIO   uint64 `json:"mmio"`
	Kicked uint64 `json:"kicked"` // by a signal of ours
	Other  uint64 `json:"other"`
}

// exitCounts are VCPUStats that are being counted.
type exitCounts struct{ portIO, mmio, kicked, other atomic.Uint64 }

func (c *exitCounts) count(reason kvm.ExitReason) {
	switch reason {
	case kvm.ExitIO:
		c.portIO.Add(1)
	case kvm.ExitMMIO:
		c.mmio.Add(1)
	default:
		c.other.Add(1)
	}
}

// VCPUs counts the vCPUs' exits, in their order.
func (vm *VM) VCPUs() []VCPUStats {
	vm.cpus.mu.Lock() // which vCPU threads take too: not for longer than this
	cpus := vm.cpus.cpus
	vm.cpus.mu.Unlock()
	all := []VCPUStats{}
	for _, c := range cpus {
		e := &c.exits
		all = append(all, VCPUStats{PortIO: e.portIO.Load(), MMIO: e.mmio.Load(), Kicked: e.kicked.Load(), Other: e.other.Load()})
	}
	return all
}

func (a *API) stats(w http.ResponseWriter, _ *http.Request) {
	s := Stats{Uptime: time.Since(a.started), VCPUs: []VCPUStats{}, Devices: []DeviceInfo{}}
	if vm := a.VM(); vm != nil {
		s.VCPUs, s.Devices = vm.VCPUs(), vm.VirtioDevices()
		vm.askGuest()
	}
	writeJSON(w, http.StatusOK, s)
}
