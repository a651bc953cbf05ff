// Package virtiotest drives virtio devices in tests as a guest's driver would,
// without a guest: through the registers, in the same guest memory, and with
// both sides' notifications suppressed as VIRTIO 1.2, 2.7.7 and 2.7.10, allow.
// A device that notifies too little hangs the test that uses it.
package virtiotest
