// Package console is the host's terminal as a guest's serial console: raw
// mode, and the keys that are for the monitor and not for the guest.
//
//	Ctrl-a x   leave
//	Ctrl-a a   send Ctrl-a to the guest (Ctrl-a Ctrl-a does too)
//	Ctrl-a h   list these keys
//
// Any other key after Ctrl-a is dropped together with it.
package console
