// Package tiny holds the tiny kernel: a guest for tests, demonstrations and measurements that says by itself whether
// its memory survived a migration.
//
// It is a PVH ELF (XEN_ELFNOTE_PHYS32_ENTRY) of a few KiB, written in plain integer instructions, so that it runs on
// any KVM, however poor, and in QEMU (-kernel) as well. It finds RAM in the memory map of hvm_start_info, the
// processors and the way to power off in ACPI, starts every CPU by INIT and SIPI, takes 100 timer interrupts a second
// on each from its local APIC, and halts when there is nothing to do. Source: *.S here; hack/tiny/build.sh makes
// tiny.elf from it, and a test compares the two.
//
// # Memory
//
// The kernel with the stacks of its CPUs takes 300 KiB from 1 MiB on; a table with a 4-byte count for each page follows,
// 1 MiB for each GiB of RAM, after page directories where the CPU has no 1 GiB pages. The test range is all RAM behind
// that, in one piece below 4 GiB and the largest one above. Below 1 MiB only the page at 0x8000 is written, where the
// other CPUs start.
//
// CPU k of n owns the pages p with p mod n = k; no other CPU goes there. A page p that has been written c times holds,
// as little-endian 64-bit words, p<<32|c at offset 0 and its complement at offset 4088, and c is kept in the table of
// counts as well. A page that is lost, stale, torn or in the wrong place is thus found by the guest.
//
// # Command line
//
// Words of the form name=value, separated by blanks. SIZE is in MiB; M or G may follow. A word that is not understood
// is printed ("tiny: ignored: WORD") and has no effect.
//
//	cpus=N            use at most N CPUs; without ACPI: there are N, with APIC ids from 0   (all; without ACPI 1)
//	mem=SIZE          the test range is the first SIZE of it                                (all)
//	span=SIZE         the work goes over the first SIZE of the test range                   (all of it)
//	fill=0|1|full     at the start write every page of the test range: 1 the two stamps,
//	                  full also everything between, with what does not compress             (0)
//	work=idle|touch|write   what each CPU does to page after page: nothing, read, write     (idle)
//	order=seq|down|stride|rand
//	                  in which order: its pages upward, downward, every 17th of them, or
//	                  at random                                                             (seq)
//	rate=N            at most N pages a second on each CPU; 0 is as fast as it goes         (0)
//	check=0|1         verify each page before it is written, or when it is touched          (0)
//	sweep=0|1         at the end verify the whole test range, with fill=full every byte;
//	                  implies check=1                                                       (0)
//	beat=MS           a heartbeat every MS milliseconds, in steps of 10                     (1000)
//	stop=N            end after N heartbeats; 0 is never                                    (0)
//	end=poweroff|reboot|triple|panic|halt
//	                  how: ACPI S5; keyboard controller reset (or else a triple fault); a
//	                  triple fault; an undefined instruction, thus the line PANIC; cli, hlt (poweroff)
//
// # Output
//
// On the serial port at 0x3F8; every line ends in \r\n.
//
//	tiny: cpus=4 mem=1021M span=512M pages=261557 work=write order=rand fill=1 check=1
//	ready                             the range is filled, work and heartbeats begin
//	beat 12 pages 34567 bad 0         heartbeat 12; pages visited and pages found bad since the start, all CPUs
//	BAD page 77 want 0000004d00000003 got 0000004d00000002 at 000000000022d000
//	                                  a wrong word, at this guest-physical address; 32 such lines at most
//	echo LINE                         the answer to a line (255 bytes at most) typed on the serial port after "ready"
//	sweep pages 261557 bad 0          after stop=, with sweep=1
//	end                               the last line of a run that ends by itself
//	PANIC cpu 0 vector 14 error ...   an exception, with rip, rsp and cr2; the kernel tells pvpanic (port 0x505) and
//	                                  halts
package tiny
