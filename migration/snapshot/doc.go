// Package snapshot is a VM at rest: a directory that has all there is of one, but
// for its disks, laid out as follows.
//
//	DIR/memory        guest RAM. Each block begins at a multiple of 2 MiB after
//	                  the end of the one before. Pages of zeros are holes.
//	DIR/sums          4 bytes for each page of 4096 of DIR/memory, little-endian:
//	                  its CRC-32C, exclusive or that of a page of zeros, so that
//	                  the sums of a hole are a hole
//	DIR/state         the devices' states: a DEVICE_STATE message of package wire
//	                  each, as PACKAGED has them in a migration
//	DIR/machine.json  what kind of machine it is, and the sizes and sums of the
//	                  others: see Head
//
// machine.json is written last, when the others are on the disk. Empty, it says
// that its snapshot was never finished.
//
// Nothing that is read is believed: sizes are compared before anything is
// allocated, and no page is handed out that its sum is not right for.
package snapshot
