// Package vmm is one virtual machine in one process: its configuration, its
// assembly from the packages below, its vCPU threads, its life, and what the
// process shows to others.
//
//	        microvm ps, inspect, pause, migrate...      microvm console
//	                    │ HTTP + JSON                         │ bytes
//	STATEDIR/NAME/   api.sock                           console.sock
//	                    │                                     │
//	                  API ──▶ VM: state machine            Console ◀─▶ stdio
//	                           │ Pause, Resume...             ▲│
//	            ┌──────────────┴─────┬─────────┐              │▼ typed
//	          cpuSet             Devices()   Blocks()       serial0
//	     ┌──────┼──────┐             │                        │
//	   vcpu0  vcpu1  vcpuN  one OS thread each                │
//	     └──────┴──────┴── KVM_RUN ── IO, MMIO exits ── Bus ──┘
//
// A VM is made by New, which loads a kernel, or by NewIncoming, from another
// VM's Config; it satisfies migration.SourceMachine and
// migration.DestinationMachine. state.go has the state machine, cpuset.go says
// how a vCPU is stopped without losing anything, handover.go how a VM changes
// hosts.
package vmm
