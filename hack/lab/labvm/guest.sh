#!/bin/sh
# Process 1 of the guest that tests boot in the lab, on Debian's own kernel. What it does is chosen on the kernel's
# command line:
#   root=/dev/vda     go on with the system on that disk
#   mv.job=shell      a shell on ttyS0 (the default)
#   mv.tty=hvc0       shell: there instead
#   mv.job=checksum   copy and checksum 64 MiB in a loop, a part on each CPU; says "sum ok N up SECONDS" each round
#   mv.job=stress     the same beside stress-ng, which verifies memory in ways of its own; "stress ok N operations"
#   mv.job=poweroff   power off at once
#   mv.job=fio        measure the disk with the serial number "data" by fio, which is on the one with "debian": for each line
#                     "RW:BLOCK:DEPTH" that is typed on ttyS0 a line "done RW:BLOCK:DEPTH KIB_PER_SECOND REQUESTS_PER_SECOND"
#   mv.job=iperf      measure the network card by the iperf3 and ping of the disk "debian", against mv.peer=ADDRESS from
#                     mv.address=ADDRESS/BITS: for each line "send", "receive" or "ping" that is typed on ttyS0 a line
#                     "done send|receive KBIT_PER_SECOND" or "done ping MILLISECONDS"
#   mv.seconds=N      fio, iperf: for each, instead of 4
# Both say "ready for jobs" first, and "failed JOB" after what the program said if a job did not work.
#   mv.fill=MIB       first fill that much memory with random bytes (checksum verifies them at its end)
#   mv.size=MIB       checksum, stress: how much instead of 64
#   mv.rounds=N       checksum, stress: power off after N rounds (default: to the round in which a line is typed on ttyS0)
#   mv.stress=MIB     stress: how much each of stress-ng's two workers has (16)
# What went wrong starts a line with SUM BAD, STRESS BAD, FILL BAD, UPTIME BAD or DMESG BAD.
export PATH=/bin HOME=/ TERM=vt100
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /data /tmp
mount -t tmpfs -o size=95% data /data
hostname guest
while read -r module; do insmod "$module"; done < /lib/modules/list
cpus=$(grep -c ^processor /proc/cpuinfo)

param() { # NAME DEFAULT
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) echo "${word#*=}"; return ;; esac
	done
	echo "$2"
}
uptime_now() { cut -d' ' -f1 /proc/uptime; }

# on_each_cpu COMMAND ARG...: as many copies at once as there are CPUs, each with its number as last argument.
on_each_cpu() {
	n=0 jobs=
	while [ $n -lt "$cpus" ]; do
		"$@" $n &
		n=$((n + 1)) jobs="$jobs $!"
	done
	wait $jobs
}
# randomize NAME MIB PART: makes /data/NAME.PART, this CPU's part of so many MiB, and notes its sum.
randomize() {
	dd if=/dev/urandom of="/data/$1.$3" bs=64k count=$(($2 * 16 / cpus)) 2> /tmp/dd.$3 || cat /tmp/dd.$3
	md5sum < "/data/$1.$3" > "/tmp/$1.want.$3"
}
# The copy is written anew each time, so that the load dirties pages as it reads them.
copy_and_sum() { cat "/data/master.$1" > "/data/copy.$1" && md5sum < "/data/copy.$1" > "/tmp/master.got.$1"; }
sum_again() { md5sum < "/data/$1.$2" > "/tmp/$1.got.$2"; }
# compare NAME COMPLAINT: whether every part's sum is what it was at first.
compare() {
	n=0 good=0
	while [ $n -lt "$cpus" ]; do
		cmp -s "/tmp/$1.want.$n" "/tmp/$1.got.$n" ||
			{ good=1; echo "$2 part $n: $(cat "/tmp/$1.got.$n"), want $(cat "/tmp/$1.want.$n")"; }
		n=$((n + 1))
	done
	return $good
}

# Any of these in the kernel's log means that time or a CPU stood still for the guest. What was logged before the work
# began is about the boot, and is not held against it.
complaints='lockup|rcu.*(stall|starved)|clocksource.*(unstable|skew|wrong)|[Mm]arking (clocksource|TSC)|TSC.*unstable'
complaints="$complaints|time.*went backwards|blocked for more than|BUG:|Oops|WARNING:|Call Trace|[Hh]ardware [Ee]rror"
complaints="$complaints|I/O error|EXT4-fs (error|warning)|[Ee]rror.*vd[a-z]|device needs reset"
dmesg_complaints() { dmesg | grep -E "$complaints"; }
dmesg_check() {
	dmesg_complaints | grep -vxFf /tmp/dmesg.known > /tmp/dmesg.new || return 0
	sed 's/^/DMESG BAD /' /tmp/dmesg.new
	cat /tmp/dmesg.new >> /tmp/dmesg.known
	dmesg_bad=1
}

# stress: stress-ng goes on until the checksums are over, and then gives its verdict: its status is 0 if all that it
# verified was right. A newer one says besides how many of its workers passed and failed.
stress() {
	stress-ng --temp-path /tmp --vm 2 --vm-bytes "$(param mv.stress 16)m" --vm-method all --verify --timeout 0 \
		--metrics-brief < /dev/null > /tmp/stress.log 2>&1 &
	stressing=$!
	checksum
	kill -INT $stressing || echo "STRESS BAD it did not go on"
	wait $stressing
	status=$?
	grep -E 'successful run|passed|failed|skipped|fail:' /tmp/stress.log | sed 's/^.*\] */stress-ng: /'
	if [ $status -eq 0 ]; then
		sed -n 's/^.*\] vm  *\([0-9]*\) .*$/stress ok \1 operations/p' /tmp/stress.log
	else
		echo "STRESS BAD status $status"
	fi
}

checksum() {
	rounds=$(param mv.rounds 0)
	on_each_cpu randomize master "$(param mv.size 64)"
	if [ "$rounds" -eq 0 ]; then
		stty -F /dev/ttyS0 -echo # or what is typed would stand in the middle of a line
		{ read -r _ < /dev/ttyS0; : > /tmp/enough; } &
	fi
	echo "checksum start"
	round=0 last=$(uptime_now)
	while [ "$rounds" -eq 0 -a ! -e /tmp/enough ] || [ $round -lt "$rounds" ]; do
		round=$((round + 1))
		on_each_cpu copy_and_sum
		now=$(uptime_now)
		awk "BEGIN { exit !($now < $last) }" && echo "UPTIME BAD $now after $last"
		last=$now
		compare master "SUM BAD round $round" && echo "sum ok $round up $now"
		dmesg_check
	done
	if [ "$fill" -gt 0 ]; then
		on_each_cpu sum_again fill
		compare fill "FILL BAD" && echo "fill ok"
	fi
	[ -z "$dmesg_bad" ] && echo "dmesg ok"
	# KVM's interrupts that a page has come for which something else was run: asynchronous page faults.
	awk '$1 == "HYP:" { for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++) n += $i } END { print "async pages ready", n + 0 }' /proc/interrupts
}

root=$(param root "")
if [ -n "$root" ]; then
	mkdir -p /root-disk && mount -t ext4 "$root" /root-disk || { echo "mount $root: failed"; poweroff -f; }
	umount /data
	for dir in dev proc sys; do mount -o move /$dir /root-disk/$dir; done
	exec switch_root /root-disk /sbin/init
fi

# disk_called SERIAL: the block device with that serial number.
disk_called() {
	for d in /sys/block/vd*; do [ "$(cat $d/serial)" = "$1" ] && echo "/dev/${d##*/}"; done
}
mount_debian() {
	mkdir -p /debian
	mount -t ext4 -o ro "$(disk_called debian)" /debian && mount -o bind /dev /debian/dev &&
		mount -t proc proc /debian/proc && mount -t sysfs sys /debian/sys && mount -t tmpfs tmp /debian/tmp
}
# each_job COMMAND: runs it with each line that is typed, which it is to print "done LINE FIGURES" for.
each_job() {
	stty -F /dev/ttyS0 -echo # or what is typed would stand in the middle of a line
	echo "ready for jobs"
	while read -r job; do
		"$1" "$job" > /tmp/log 2>&1 < /dev/null
		grep "^done " /tmp/log || { cat /tmp/log; echo "failed $job"; }
	done < /dev/ttyS0
}
run_fio() {
	rw=${1%%:*} depth=${1##*:} bs=${1#*:} bs=${bs%:*}
	chroot /debian fio --name=job --filename="$data" --rw="$rw" --bs="$bs" --iodepth="$depth" --direct=1 \
		--ioengine=libaio --time_based --ramp_time=1 --runtime="$(param mv.seconds 4)" --minimal --terse-version=3 > /tmp/fio
	# Of a job that reads the figures of writing are 0, and the other way round.
	awk -F ';' -v job="$1" 'NF > 50 { print "done", job, $7 + $48, $8 + $49; next } { print }' /tmp/fio
}
run_iperf() {
	peer=$(param mv.peer 192.0.2.1)
	case $1 in
	ping)
		chroot /debian /usr/bin/ping -q -c 300 -i 0.005 "$peer" > /tmp/ping
		# The last line has least/mean/most/deviation.
		awk -F / '/^rtt/ { print "done ping", $5; next } { print }' /tmp/ping
		return ;;
	send) reverse= ;;
	receive) reverse=-R ;;
	*) return ;;
	esac
	# The word before "Kbits/sec" in the receiver's summary.
	chroot /debian iperf3 -c "$peer" -f k -O 1 -t "$(param mv.seconds 4)" $reverse > /tmp/iperf
	awk -v job="$1" '/receiver/ { for (i = 2; i <= NF; i++) if ($i == "Kbits/sec") print "done", job, $(i-1); next } { print }' /tmp/iperf
}

dmesg_bad=
# The first line is for grep, which takes an empty list of patterns from a file for no pattern at all.
echo "nothing known" > /tmp/dmesg.known
dmesg_complaints >> /tmp/dmesg.known
echo "GUEST READY cpus $cpus up $(uptime_now)"
fill=$(param mv.fill 0)
if [ "$fill" -gt 0 ]; then
	on_each_cpu randomize fill "$fill"
	echo "fill done $fill MiB"
fi
case $(param mv.job shell) in
checksum) checksum ;;
stress) stress ;;
poweroff) ;;
fio) mount_debian && data=$(disk_called data) && each_job run_fio ;;
iperf)
	mount_debian && ip addr add "$(param mv.address 192.0.2.2/24)" dev eth0 && ip link set eth0 up && each_job run_iperf
	;;
shell)
	# A session of its own with its terminal, so that ^C and job control work as on a real console.
	PS1='guest# ' setsid sh -c "exec sh -i < /dev/$(param mv.tty ttyS0) > /dev/$(param mv.tty ttyS0) 2>&1"
	;;
*) echo "mv.job=$(param mv.job): no such job" ;;
esac
poweroff -f
