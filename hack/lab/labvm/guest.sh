#!/bin/sh
# Process 1 of the guest that tests boot in the lab, on Debian's own kernel. What it does is chosen on the kernel's
# command line:
#   mv.job=shell      a shell on ttyS0 (the default)
#   mv.job=checksum   copy and checksum 64 MiB in a loop, on every CPU at once; says "sum ok N up SECONDS" each round
#   mv.job=poweroff   power off at once
#   mv.fill=MIB       first fill that much memory with non-zero bytes (checksum verifies them at its end)
#   mv.size=MIB       checksum: how much instead of 64
#   mv.rounds=N       checksum: power off after N rounds (default: go on for ever)
# What went wrong starts a line with SUM BAD, FILL BAD, UPTIME BAD or DMESG BAD.
export PATH=/bin HOME=/ TERM=vt100
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /data /tmp
mount -t tmpfs -o size=95% data /data
hostname guest

param() { # NAME DEFAULT
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) echo "${word#*=}"; return ;; esac
	done
	echo "$2"
}
uptime_now() { cut -d' ' -f1 /proc/uptime; }
checksum_of() { md5sum < "$1"; }

# Any of these in the kernel's log means that time or a CPU stood still for the guest.
complaints='lockup|rcu.*(stall|starved)|clocksource.*(unstable|skew|wrong)|[Mm]arking (clocksource|TSC)|TSC.*unstable'
complaints="$complaints|time.*went backwards|blocked for more than|BUG:|Oops|WARNING:|Call Trace|[Hh]ardware [Ee]rror"
dmesg_check() {
	dmesg | grep -E "$complaints" > /tmp/bad && sed 's/^/DMESG BAD /' /tmp/bad
	[ ! -s /tmp/bad ]
}

echo "GUEST READY cpus $(grep -c ^processor /proc/cpuinfo) up $(uptime_now)"

fill=$(param mv.fill 0)
if [ "$fill" -gt 0 ]; then
	# One random mebibyte without zero bytes, repeated: no page is zero, and no page comes from a slow generator.
	tr '\000' '\001' < /dev/urandom | head -c 1048576 > /tmp/seed
	i=0
	while [ $i -lt "$fill" ]; do cat /tmp/seed; i=$((i + 1)); done > /data/fill
	fill_sum=$(checksum_of /data/fill)
	echo "fill done $fill MiB"
fi

checksum() {
	size=$(param mv.size 64) rounds=$(param mv.rounds 0) cpus=$(grep -c ^processor /proc/cpuinfo)
	cpu=0
	while [ $cpu -lt "$cpus" ]; do
		head -c $((size * 1048576 / cpus)) /dev/urandom > /data/master.$cpu
		checksum_of /data/master.$cpu > /tmp/want.$cpu
		cpu=$((cpu + 1))
	done
	echo "checksum start"
	round=0 last=$(uptime_now)
	while [ "$rounds" -eq 0 ] || [ $round -lt "$rounds" ]; do
		round=$((round + 1)) cpu=0 good=1
		while [ $cpu -lt "$cpus" ]; do
			# The copy is written anew each round, so the load dirties pages as fast as it reads them.
			(cat /data/master.$cpu > /data/copy.$cpu; checksum_of /data/copy.$cpu > /tmp/got.$cpu) &
			cpu=$((cpu + 1))
		done
		wait
		cpu=0
		while [ $cpu -lt "$cpus" ]; do
			if ! cmp -s /tmp/want.$cpu /tmp/got.$cpu; then
				good=0
				echo "SUM BAD round $round part $cpu: $(cat /tmp/got.$cpu), want $(cat /tmp/want.$cpu)"
			fi
			cpu=$((cpu + 1))
		done
		now=$(uptime_now)
		awk "BEGIN { exit !($now < $last) }" && echo "UPTIME BAD $now after $last"
		last=$now
		[ $good = 1 ] && echo "sum ok $round up $now"
		dmesg_check
	done
	if [ "$fill" -gt 0 ]; then
		[ "$(checksum_of /data/fill)" = "$fill_sum" ] && echo "fill ok" || echo "FILL BAD"
	fi
	dmesg_check && echo "dmesg ok"
}

case $(param mv.job shell) in
checksum) checksum ;;
poweroff) ;;
shell)
	# A session of its own with ttyS0 as its terminal, so that ^C and job control work as on a real console.
	PS1='guest# ' setsid sh -c 'exec sh -i < /dev/ttyS0 > /dev/ttyS0 2>&1'
	;;
*) echo "mv.job=$(param mv.job): no such job" ;;
esac
poweroff -f
