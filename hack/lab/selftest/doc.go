// Package selftest holds the tests that show the lab itself to be a KVM host.
package selftest
