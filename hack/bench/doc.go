// Command bench measures this program and QEMU side by side: the same guest, memory, machine and link, in turns, so
// that what else the machine does falls on both alike. An absolute time on a shared machine says little; a ratio taken
// within one run does.
//
//	go run ./hack/bench                              the rows that are measured by default, 5 pairs each
//	go run ./hack/bench --list                       every row, and its goal
//	go run ./hack/bench --rows postcopy,memory --pairs 9 --out bench --json bench/figures.json
//
// It writes a Markdown table and the figures behind it as JSON. See docs/benchmarks.md.
package main
