// Command release writes what belongs to a built microvm besides the program: manual pages and completions, which the
// program prints itself; a list of what it was built from (SPDX 2.3, from its build information, so that it is true of
// this file and no other); and the licences of the modules in it.
//
//	go run ./hack/release --program PROGRAM --out DIRECTORY
//
//	DIRECTORY/man/*.1.gz
//	DIRECTORY/completion/microvm, _microvm, microvm.fish
//	DIRECTORY/microvm.spdx.json
//	DIRECTORY/LICENSES
//
// The same program gives the same bytes. .goreleaser.yaml and `make install` put them where they belong.
package main
