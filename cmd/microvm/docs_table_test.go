//go:build !race

package main

import "regexp"

// How the command lines of the docs are tested. Each is run as it stands but for replaced, in a folder that has what
// they name (a kernel, disks, certificates), with two hosts: this one and the one that receive is on. What a line needs
// and the lines before it on its page did not leave (a VM of that name, a destination, a migration under way) is made by
// docs_test.go. What cannot be run here is in notRun, with the reason, and is looked at as closely as can be.

// replaced is what must differ where the docs are tested. {here} is the folder, {port} the destination's port.
var replaced = []struct{ what, by string }{
	{"bin/microvm", "microvm"},
	{"curl ", "curl --fail "}, // or it would be content with any answer
	{"-m 1G", "-m 128M"},
	{"microvm demo", "microvm demo -m 128M"},                // it touches all of it
	{"--postcopy-bandwidth 10M", "--postcopy-bandwidth 1G"}, // slow enough for a person to break it
	{"--memory 16G", "--memory 256M"},
	{"unix:/run/microvm/in.sock", "unix:{here}/in.sock"},
	{"unix:/tmp/in.sock", "unix:{here}/in.sock"},
	{"/tmp/v.sock", "{here}/v.sock"},
	{"--listen 127.0.0.1:9180", "--listen 127.0.0.1:0"},
	{"/etc/microvm/tls", "{here}/tls"},
	{"/var/lib/vms", "{here}/vms"},
	{"/shared/root.img", "{here}/shared.img"},
	{"/usr/local/share/man/man1", "{here}/man"},
	{"/dev/tcp/192.0.2.7/4444", "/dev/tcp/127.0.0.1/{port}"},
}

// hostAddress is the address of another host, of those that are for documents.
var hostAddress = regexp.MustCompile(`tcp:(?:10\.0\.0\.2|192\.0\.2\.\d+|198\.51\.100\.\d+|127\.0\.0\.1):4444`)

// powerButton is a stop that the guest has to obey. The tiny kernel does not: it is not waited for, and the exit status
// says so.
var powerButton = regexp.MustCompile(`microvm stop \w+$`)

// synopsis is a line that shows a form, with words to be replaced by the reader's: its command and flags are looked up.
var synopsis = regexp.MustCompile(`\.\.\.|\[|\b(VM|DEST|FILE|DIR|CMD|ARG|UDS|SIZE|PERCENT|NAME|UID|USER|MIB)\b`)

// A check looks at a line that is not run; it says what is wrong with it.
type check func(line string) error

// notRun are the lines that are not run, the first that fits, why, and what is looked at instead.
var notRun = []struct {
	line, why string
	check     check
}{
	{`^(sudo )?make `, "the tests are run by it, and it would build what is being tested", makeTarget},
	{`^go run \./`, "the lab takes minutes, the benchmark hours", goProgram},
	{`^(\S+=\S+ )*go (test|build) `, "the tests are run by it", goPackages},
	{`^(git|cd) `, "it is about a clone of one's own", nil},
	{`^(openssl|mkdir host|printf 'subjectAltName|printf 'extendedKeyUsage|cp ca-cert)`, "TestTheDocumentedCertificatesWork runs these, in one go", hasTest("TestTheDocumentedCertificatesWork")},
	{`--take-back`, "it takes a destination that ended at one instant; TestAVMThatNeverRanThereIsTakenBackByHand makes that", hasTest("TestAVMThatNeverRanThereIsTakenBackByHand")},
	{`^sudo ss -K`, "it takes a kernel with CONFIG_INET_DIAG_DESTROY, and would cut other tests' connections", nil},
	{`^for vm in `, "it takes a destination for each VM", known},
	{`(^|[ ;])(sudo|apt-get|apt|dpkg|systemctl|journalctl|usermod|modprobe) `, "it changes the machine, or asks its services", nil},
}
