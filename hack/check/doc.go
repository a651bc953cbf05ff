// Package check holds the code to the project's rules: go test ./hack/check.
//
// A rule is a function from the project's files to complaints, so that a test can show it files that break it.
package check
