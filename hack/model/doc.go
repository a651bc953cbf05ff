// Package model is the ownership part of a migration, small enough to be
// checked exhaustively: every interleaving of a source, a destination, the
// connections between them, their users, and whatever can break.
//
// It is a model of package migration, kept by hand. Its moves carry the names
// of the functions and messages that they stand for, so that whoever changes
// one finds the other: "source: handOver: Pause" is the call of Pause in
// (*Source).handOver. What is modelled, what is left out and what is assumed
// is in docs/ownership.md.
//
// The tests explore every reachable state and check the properties in
// properties.go. They also break the protocol on purpose, one rule at a time
// (type mutation), and expect the checker to find what each rule is for.
package model
