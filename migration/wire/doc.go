// Package wire is the migration stream on the wire: how each message of
// package migration is laid out in bytes, and nothing of what it means.
//
// A stream has several connections, called channels. Each opens with a
// [Hello] from the side that dialled, answered by a [Welcome]. After that the
// dialling side (the source) sends forward messages and, on the main channel
// only, the accepting side (the destination) return-path messages:
//
//	0       2       4               8               12
//	+-------+-------+---------------+---------------+------------------
//	| type  | check |    length     |    CRC-32C    | body ...
//	+-------+-------+---------------+---------------+------------------
//
// The check is of the header, the CRC of the body: any one byte that changes on
// the way makes the message an [Error]. The pages in a RAM message are beyond
// both.
//
// Every integer is big-endian. Every type has a greatest body length
// ([Type.MaxBody], [ReturnType.MaxBody]), checked before a byte of the body is
// read, and a body is read in steps, so that a stranger who announces a long
// message makes this side allocate no more than was really sent.
//
// Decoders never panic and never keep a reference to what they decode from
// beyond what their documentation says. Every decoder has a fuzz target.
package wire
