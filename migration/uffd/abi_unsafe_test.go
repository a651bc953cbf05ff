package uffd

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestMirrorsTheKernelsHeader compiles a C program that prints what
// linux/userfaultfd.h says.
func TestMirrorsTheKernelsHeader(t *testing.T) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		t.Skipf("%v: install a C compiler and the kernel's headers (Debian: gcc, linux-libc-dev)", err)
	}
	type entry struct {
		c      string
		mirror uint64
	}
	var (
		api  apiArg
		reg  registerArg
		cp   copyArg
		zero zeropageArg
		msg  message
	)
	entries := []entry{
		{"UFFD_API", apiVersion},
		{"UFFD_FEATURE_THREAD_ID", featureThreadID},
		{"UFFD_FEATURE_MISSING_HUGETLBFS", featureMissingHugetlbfs},
		{"UFFD_EVENT_PAGEFAULT", eventPagefault},
		{"UFFD_PAGEFAULT_FLAG_WRITE", FaultWrite},
		{"UFFDIO_REGISTER_MODE_MISSING", registerModeMissing},
		{"UFFDIO_COPY_MODE_DONTWAKE", copyModeDontWake},

		{"_UFFDIO_REGISTER", nrRegister},
		{"_UFFDIO_UNREGISTER", nrUnregister},
		{"_UFFDIO_WAKE", nrWake},
		{"_UFFDIO_COPY", nrCopy},
		{"_UFFDIO_ZEROPAGE", nrZeropage},
		{"_UFFDIO_API", nrAPI},

		{"USERFAULTFD_IOC_NEW", userfaultfdNew},
		{"UFFDIO_API", uint64(uffdioAPI)},
		{"UFFDIO_REGISTER", uint64(uffdioRegister)},
		{"UFFDIO_UNREGISTER", uint64(uffdioUnregister)},
		{"UFFDIO_WAKE", uint64(uffdioWake)},
		{"UFFDIO_COPY", uint64(uffdioCopy)},
		{"UFFDIO_ZEROPAGE", uint64(uffdioZeropage)},
		{"__NR_userfaultfd", unix.SYS_USERFAULTFD},

		{"sizeof(struct uffdio_api)", uint64(unsafe.Sizeof(api))},
		{"offsetof(struct uffdio_api, features)", uint64(unsafe.Offsetof(api.features))},
		{"offsetof(struct uffdio_api, ioctls)", uint64(unsafe.Offsetof(api.ioctls))},
		{"sizeof(struct uffdio_range)", uint64(unsafe.Sizeof(rangeArg{}))},
		{"offsetof(struct uffdio_range, len)", uint64(unsafe.Offsetof(rangeArg{}.len))},
		{"sizeof(struct uffdio_register)", uint64(unsafe.Sizeof(reg))},
		{"offsetof(struct uffdio_register, mode)", uint64(unsafe.Offsetof(reg.mode))},
		{"offsetof(struct uffdio_register, ioctls)", uint64(unsafe.Offsetof(reg.ioctls))},
		{"sizeof(struct uffdio_copy)", uint64(unsafe.Sizeof(cp))},
		{"offsetof(struct uffdio_copy, src)", uint64(unsafe.Offsetof(cp.src))},
		{"offsetof(struct uffdio_copy, len)", uint64(unsafe.Offsetof(cp.len))},
		{"offsetof(struct uffdio_copy, mode)", uint64(unsafe.Offsetof(cp.mode))},
		{"offsetof(struct uffdio_copy, copy)", uint64(unsafe.Offsetof(cp.copied))},
		{"sizeof(struct uffdio_zeropage)", uint64(unsafe.Sizeof(zero))},
		{"offsetof(struct uffdio_zeropage, mode)", uint64(unsafe.Offsetof(zero.mode))},
		{"offsetof(struct uffdio_zeropage, zeropage)", uint64(unsafe.Offsetof(zero.zeroed))},
		{"sizeof(struct uffd_msg)", uint64(messageSize)},
		{"offsetof(struct uffd_msg, arg.pagefault.flags)", uint64(unsafe.Offsetof(msg.flags))},
		{"offsetof(struct uffd_msg, arg.pagefault.address)", uint64(unsafe.Offsetof(msg.address))},
		{"offsetof(struct uffd_msg, arg.pagefault.feat.ptid)", uint64(unsafe.Offsetof(msg.threadID))},
	}
	var src strings.Builder
	src.WriteString("#include <stdio.h>\n#include <stddef.h>\n#include <sys/ioctl.h>\n#include <sys/syscall.h>\n#include <linux/userfaultfd.h>\nint main(void) {\n")
	for _, e := range entries {
		fmt.Fprintf(&src, "printf(\"%%llu\\n\", (unsigned long long)(%s));\n", e.c)
	}
	src.WriteString("return 0; }\n")
	dir := t.TempDir()
	file, binary := filepath.Join(dir, "abi.c"), filepath.Join(dir, "abi")
	if err := os.WriteFile(file, []byte(src.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(cc, "-o", binary, file).CombinedOutput(); err != nil {
		if strings.Contains(string(out), "USERFAULTFD_IOC_NEW") {
			t.Skipf("the installed linux/userfaultfd.h is older than Linux 6.1; install newer kernel headers:\n%s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := exec.Command(binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Fields(string(out)) {
		if want := fmt.Sprint(entries[i].mirror); line != want {
			t.Errorf("%s is %s, mirrored as %s", entries[i].c, line, want)
		}
	}
}
