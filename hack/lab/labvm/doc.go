// Package labvm makes and boots the lab: a Debian kernel in QEMU's software emulation, with SVM and nested paging, that
// runs one command as root on a real kvm_amd.
//
//	this machine          QEMU, emulating          the lab                 a guest in the lab
//	lab run, go test  --> virtio-serial port  <--> init: the command  -->  vmlinuz + initrd.gz (guest.sh)
//	                      (package frame)          /dev/kvm = kvm_amd      the same Debian kernel
//
// Everything the lab is made of comes from Debian packages, downloaded into a cache folder and installed nowhere; its
// initramfs is written anew for each run, by this package itself. This machine needs QEMU and the go command.
package labvm
