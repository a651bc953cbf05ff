package doctor

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/user"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"microvm/kvm"
	"microvm/vmm"
)

// optional says what those capabilities are for without which there is a way.
var optional = map[kvm.Cap]string{
	kvm.CapNRMemSlots:             "as many memory slots as this says",
	kvm.CapMaxVCPUs:               "as many vCPUs in a VM as this says",
	kvm.CapTSCControl:             "taking in VMs of hosts whose clock (TSC) runs at another speed",
	kvm.CapTSCDeadlineTimer:       "the guest's most precise timer",
	kvm.CapManualDirtyLogProtect2: "precopy that holds the guest up less",
	kvm.CapSregs2:                 "page-directory pointers of 32-bit guests that move",
	kvm.CapXSave2:                 "guests with AMX",
	kvm.CapCoalescedMMIO:          "fewer exits of a guest with virtio devices",
}

// lookAtKVM opens /dev/kvm and asks for each capability.
func lookAtKVM() []Check {
	version, offers, err := kvm.Survey()
	dev := check("kvm", forBoot, err, fmt.Sprintf("/dev/kvm opens (%s), API version %d", ownerOf("/dev/kvm"), version))
	if err != nil {
		dev.Found += " (" + ownerOf("/dev/kvm") + ")"
		return []Check{dev}
	}
	all := []Check{dev}
	if len(offers) == 0 {
		all[0] = check("kvm", forBoot, fmt.Errorf("/dev/kvm has API version %d, and there is no other than 12; use a kernel that is not modified", version), "")
		return all
	}
	needed := 0
	for _, o := range offers {
		switch {
		case o.Needed && o.Value != 0:
			needed++
		case o.Needed:
			all = append(all, Check{o.Cap.String(), Missing, forBoot, "this kernel's KVM lacks it", "use Linux 4.11 or newer"})
		}
	}
	all = append(all, Check{Name: "kvm capabilities", Status: OK, For: forBoot, Found: fmt.Sprintf("%d that are needed are there", needed)})
	for _, o := range offers {
		if o.Needed {
			continue
		}
		c := Check{Name: o.Cap.String(), Status: OK, For: "speed", Found: strconv.Itoa(o.Value)}
		if purpose, ok := optional[o.Cap]; ok {
			c.For = purpose
		}
		if o.Value == 0 {
			c = c.warn("this kernel's KVM, or this processor, lacks it", "it depends on the processor and the kernel")
		}
		all = append(all, c)
	}
	return all
}

// ownerOf says whose a file is and what its mode is.
func ownerOf(path string) string {
	info, err := os.Stat(path)
	if err != nil {
		return "not there"
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return info.Mode().String()
	}
	group := strconv.Itoa(int(stat.Gid))
	if g, err := user.LookupGroupId(group); err == nil {
		group = g.Name
	}
	return fmt.Sprintf("group %s, mode %#o", group, info.Mode().Perm())
}

// bootTime bounds the boot of the tiny kernel, which takes milliseconds where
// the processor runs it, and a second where KVM interprets it.
const bootTime = 30 * time.Second

// lookAtBoot boots the tiny kernel, has it work, and power off.
func lookAtBoot(ctx context.Context) []Check {
	began := time.Now()
	err := bootTiny(ctx)
	return []Check{check("boot", forBoot, err, fmt.Sprintf("the tiny kernel booted, worked and powered off in %v", time.Since(began).Round(time.Millisecond)))}
}

func bootTiny(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, bootTime)
	defer cancel()
	var out output
	vm, err := vmm.New(ctx, vmm.Config{Name: "doctor", CPUs: 1, Memory: 128 << 20, Cmdline: "beat=1 stop=1 end=poweroff"}, vmm.Options{Console: vmm.NewConsole(&out)})
	if err != nil {
		return err
	}
	defer vm.Close()
	if err := vm.Start(); err != nil {
		return err
	}
	if err := vm.Wait(ctx); err != nil {
		return fmt.Errorf("the tiny kernel: %w, after it had printed %q", err, out.String())
	}
	if !strings.Contains(out.String(), "beat 1 ") {
		return fmt.Errorf("the tiny kernel ended without having worked, after it had printed %q", out.String())
	}
	return nil
}

// output is what a guest prints, from a thread of its own.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}
