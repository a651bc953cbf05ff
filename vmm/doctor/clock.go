package doctor

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// staUnsync is STA_UNSYNC of linux/timex.h: nobody keeps the clock right.
const staUnsync = 0x40

// lookAtTime looks at the host's clocks.
func lookAtTime() []Check {
	clock := Check{Name: "clock", Status: OK, For: "--tls-dir, logs", Found: "it is kept right"}
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err != nil {
		clock = check(clock.Name, clock.For, err, "")
	} else if t.Status&staUnsync != 0 {
		clock = clock.warn("nobody keeps it right: certificates may seem expired", "chrony, or systemd-timesyncd")
	}
	source := Check{Name: "clocksource", Status: OK, For: "the guest's clock"}
	text, err := os.ReadFile("/sys/devices/system/clocksource/clocksource0/current_clocksource")
	source.Found = strings.TrimSpace(string(text))
	if err != nil {
		source = source.warn(err.Error(), "mount /sys")
	} else if source.Found != "tsc" && source.Found != "kvm-clock" {
		source = source.warn(source.Found+": a guest's kvmclock, too, takes longer to read", "find out why the kernel gave the TSC up: dmesg")
	}
	return []Check{clock, source}
}
