package labvm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
)

// kernelPackage always depends on the package that holds Debian's current cloud kernel, the one for virtual machines.
const kernelPackage = "linux-image-cloud-amd64"

// Pieces are the Debian files that a lab is made of, unpacked in the cache and not installed anywhere.
type Pieces struct {
	Release string // the kernel's release, the name of its module folder: 6.1.0-56-cloud-amd64
	Vmlinuz string // path of the kernel, for the lab and for the guests inside it
	Modules string // path of the folder of its modules
	Busybox string // path of a static busybox

	cache string
}

// manifest is what the cache folder says about itself; written last, so it is there only if all the rest is.
const manifest = "pieces.json"

// FindPieces returns what an earlier Fetch left in the cache; the error wraps fs.ErrNotExist when there is nothing.
func FindPieces(cache string) (*Pieces, error) {
	b, err := os.ReadFile(filepath.Join(cache, manifest))
	if err != nil {
		return nil, fmt.Errorf("lab: reading the cache: %w", err)
	}
	p := &Pieces{cache: cache}
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("lab: %s is damaged; remove the folder: %w", filepath.Join(cache, manifest), err)
	}
	for _, f := range []*string{&p.Vmlinuz, &p.Modules, &p.Busybox} {
		*f = filepath.Join(cache, *f)
		if _, err := os.Stat(*f); err != nil {
			return nil, fmt.Errorf("lab: the cache has lost a piece: %w", err)
		}
	}
	return p, nil
}

// EnsurePieces returns the cached pieces, fetching them first where the cache has none.
func EnsurePieces(cache string, progress io.Writer) (*Pieces, error) {
	p, err := FindPieces(cache)
	if errors.Is(err, os.ErrNotExist) {
		return Fetch(cache, progress)
	}
	return p, err
}

// Fetch downloads Debian's present packages into the cache folder and unpacks them there. It needs apt's package
// lists and a network, no rights, and installs nothing. What is in the cache already is not downloaded again.
func Fetch(cache string, progress io.Writer) (*Pieces, error) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("lab: %s is not here: the lab is made from Debian packages, build it on Debian or Ubuntu", tool)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, fmt.Errorf("lab: making the cache: %w", err)
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	image, err := resolveKernel()
	if err != nil {
		return nil, err
	}
	kernelDir, err := fetchPackage(cache, image, progress)
	if err != nil {
		return nil, err
	}
	busyboxDir, err := fetchPackage(cache, "busybox-static", progress)
	if err != nil {
		return nil, err
	}
	release := strings.TrimSuffix(strings.TrimPrefix(image, "linux-image-"), "-unsigned")
	modules := filepath.Join(kernelDir, "lib/modules", release)
	if _, err := os.Stat(filepath.Join(cache, modules)); err != nil {
		modules = filepath.Join(kernelDir, "usr/lib/modules", release) // where Debian puts them from 13 on
	}
	busybox := filepath.Join(busyboxDir, "bin/busybox")
	if _, err := os.Stat(filepath.Join(cache, busybox)); err != nil {
		busybox = filepath.Join(busyboxDir, "usr/bin/busybox")
	}
	b, err := json.MarshalIndent(Pieces{
		Release: release,
		Vmlinuz: filepath.Join(kernelDir, "boot/vmlinuz-"+release),
		Modules: modules,
		Busybox: busybox,
	}, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := replaceFile(filepath.Join(cache, manifest), b); err != nil {
		return nil, err
	}
	return FindPieces(cache)
}

// replaceFile writes a file that is never seen half written.
func replaceFile(path string, b []byte) error {
	tmp := path + ".new"
	err := os.WriteFile(tmp, b, 0o644)
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return fmt.Errorf("lab: writing the cache: %w", err)
	}
	return nil
}

var kernelDependency = regexp.MustCompile(`(?m)^Depends:.*?\b(linux-image-[0-9][^ ,]*)`)

// resolveKernel returns the package that kernelPackage depends on now.
func resolveKernel() (string, error) {
	out, err := exec.Command("apt-cache", "show", "--no-all-versions", kernelPackage).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("lab: apt-cache does not know %s; run: apt-get update\n%s", kernelPackage, out)
	}
	m := kernelDependency.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("lab: apt-cache show %s names no kernel package:\n%s", kernelPackage, out)
	}
	return string(m[1]), nil
}

// aPackage is one that is in the cache.
type aPackage struct {
	dir     string   // its folder, relative to the cache
	depends []string // the first of alternatives
}

// fetchPackages downloads and unpacks the candidate versions of packages, unless they are there, by one call of apt for
// all. Names that apt does not know as packages, such as virtual ones, are left out of the answer.
func fetchPackages(cache string, progress io.Writer, names ...string) (map[string]aPackage, error) {
	// Its status says no more than that one of the names is unknown.
	out, _ := exec.Command("apt-cache", append([]string{"show", "--no-all-versions"}, names...)...).Output()
	found := map[string]aPackage{}
	var missing []string
	for stanza := range strings.SplitSeq(string(out), "\n\n") {
		field := func(name string) string {
			for line := range strings.Lines(stanza) {
				if value, ok := strings.CutPrefix(line, name+": "); ok {
					return strings.TrimSpace(value)
				}
			}
			return ""
		}
		name, version := field("Package"), field("Version")
		if name == "" || version == "" {
			continue
		}
		dir := strings.NewReplacer("/", "_", ":", "_").Replace(name + "_" + version)
		found[name] = aPackage{dir, append(depends(field("Pre-Depends")), depends(field("Depends"))...)}
		if _, err := os.Stat(filepath.Join(cache, dir)); err != nil {
			fmt.Fprintf(progress, "lab: fetching %s %s\n", name, version)
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	tmp, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return nil, fmt.Errorf("lab: writing the cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	args := append([]string{"-q", "download"}, missing...)
	if os.Geteuid() == 0 {
		// Otherwise apt drops to a user who may not write here, and complains.
		args = append([]string{"-o", "APT::Sandbox::User=root"}, args...)
	}
	download := exec.Command("apt-get", args...)
	download.Dir = tmp
	if out, err := download.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab: apt-get download %s: %w; is there a network, are the package lists fresh (apt-get update)?\n%s", strings.Join(missing, " "), err, out)
	}
	for _, name := range missing {
		debs, err := filepath.Glob(filepath.Join(tmp, name+"_*.deb"))
		if err != nil || len(debs) != 1 {
			return nil, fmt.Errorf("lab: apt-get download %s left %d packages, expected 1", name, len(debs))
		}
		root := filepath.Join(tmp, name)
		if out, err := exec.Command("dpkg", "-x", debs[0], root).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("lab: dpkg -x %s: %w\n%s", debs[0], err, out)
		}
		if err := os.Rename(root, filepath.Join(cache, found[name].dir)); err != nil {
			return nil, fmt.Errorf("lab: writing the cache: %w", err)
		}
	}
	return found, nil
}

// depends are the packages in a field of dependencies.
func depends(field string) (names []string) {
	for one := range strings.SplitSeq(field, ",") {
		if one = strings.TrimSpace(one); one != "" {
			names = append(names, strings.FieldsFunc(one, func(r rune) bool { return strings.ContainsRune(" :|(", r) })[0])
		}
	}
	return names
}

// fetchPackage is fetchPackages of one that has to be there; it returns its folder, relative to the cache.
func fetchPackage(cache, name string, progress io.Writer) (string, error) {
	found, err := fetchPackages(cache, progress, name)
	if err != nil {
		return "", err
	}
	if found[name].dir == "" {
		return "", fmt.Errorf("lab: apt-cache does not know %s; run: apt-get update", name)
	}
	return found[name].dir, nil
}

// lock takes an exclusive lock on the file at path, so that two labs do not fill the cache at once.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lab: locking the cache: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lab: locking the cache: %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
