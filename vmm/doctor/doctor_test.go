package doctor

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"microvm/memslot/hugepool"
	"microvm/migration"
	"microvm/migration/tlstest"
	"microvm/vmm"
)

// byName makes checks easy to find.
func byName(checks []Check) map[string]Check {
	all := map[string]Check{}
	for _, c := range checks {
		all[c.Name] = c
	}
	return all
}

func TestTheRemedyIsToldApart(t *testing.T) {
	c := check("x", forBoot, errors.New("it is broken; it is worn; mend it, or buy another"), "fine")
	if c != (Check{"x", Missing, forBoot, "it is broken; it is worn", "mend it, or buy another"}) {
		t.Errorf("%+v", c)
	}
	if c := check("x", forBoot, nil, "fine"); c != (Check{"x", OK, forBoot, "fine", ""}) {
		t.Errorf("%+v", c)
	}
	of := Of(migration.Outlook{Findings: []migration.Finding{
		{What: "cpu", Status: OK, Text: "all; of it"}, {What: "memory", Status: Missing, Text: "too little; add some"},
	}})
	if of[0] != (Check{"cpu", OK, forMigrate, "all; of it", ""}) || of[1] != (Check{"memory", Missing, forMigrate, "too little", "add some"}) {
		t.Errorf("%+v", of)
	}
}

func TestOnlyWhatEveryVMNeedsMakesAHostUnfit(t *testing.T) {
	for _, c := range []struct {
		status, purpose string
		fit             bool
	}{
		{OK, forBoot, true}, {Warning, forBoot, true}, {Missing, "--net", true}, {Missing, forBoot, false}, {Missing, forMigrate, false},
	} {
		if got := Fit([]Check{{Status: OK, For: forMigrate}, {Status: c.status, For: c.purpose}}); got != c.fit {
			t.Errorf("%s for %s: fit %t", c.status, c.purpose, got)
		}
	}
}

func TestAHugePageIsPutInPlaceWhereThereIsOne(t *testing.T) {
	hugepool.Need(t, 1)
	found := byName(append(lookAtUserfaultfd(), hugePages()))
	for _, name := range []string{"userfaultfd", "userfaultfd MISSING_HUGETLBFS", "huge pages"} {
		if c := found[name]; c.Status != OK || strings.Contains(c.Found, "not tried") {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestDisksAreTriedWhereTheyWouldBe(t *testing.T) {
	dir := t.TempDir()
	for where, want := range map[string]string{dir: "", "/dev/shm": Warning, "/proc/self": Missing, filepath.Join(dir, "none"): Missing} {
		c := byName(lookAtDisks(where))["disks in "+where]
		if want != "" && c.Status != want || c.Status == "" || c.Status != OK && c.Remedy == "" {
			t.Errorf("%s: %+v, want %s", where, c, want)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

func TestAHostMayHaveTheFilesOfOneSideOfTLS(t *testing.T) {
	ca := tlstest.NewCA(t)
	sends, none, open := t.TempDir(), t.TempDir(), ca.Folder()
	ca.Trust(sends)
	ca.Client(sends, tlstest.Cert{Until: 24 * 365 * 3600e9})
	if err := os.Chmod(filepath.Join(open, "server-key.pem"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, send, receive, words string
		fit                       bool
	}{
		{sends, OK, Missing, "server-cert.pem", true},
		{none, Missing, Missing, "ca-cert.pem", false},
		{open, Warning, Missing, "chmod 600", true},
	} {
		checks := lookAtTLS(c.dir)
		found := byName(checks)
		send, receive := found["TLS, to send"], found["TLS, to receive"]
		if send.Status != c.send || receive.Status != c.receive || Fit(checks) != c.fit || !strings.Contains(receive.Found+receive.Remedy, c.words) {
			t.Errorf("%+v, want %+v", checks, c)
		}
	}
	if checks := lookAtTLS(""); len(checks) > 0 {
		t.Errorf("without a folder: %+v", checks)
	}
}

func TestAStateDirectoryThatCannotBeIsNamed(t *testing.T) {
	root := filepath.Join(t.TempDir(), "r")
	t.Setenv(vmm.StateDirEnv, root)
	if c := lookAtState()[0]; c.Status != OK {
		t.Errorf("%+v", c)
	}
	if _, err := os.Stat(root); !os.IsNotExist(err) {
		t.Errorf("it is left behind: %v", err)
	}
	t.Setenv(vmm.StateDirEnv, "/proc/none")
	if c := lookAtState()[0]; c.Status != Missing || !strings.Contains(c.Remedy, vmm.StateDirEnv) {
		t.Errorf("%+v", c)
	}
	t.Setenv(vmm.StateDirEnv, filepath.Join(root, strings.Repeat("long/", 30)))
	if c := lookAtState()[0]; c.Status != Missing || !strings.Contains(c.Found, "too long") {
		t.Errorf("%+v", c)
	}
}
