package labvm

import (
	"bytes"
	"debug/elf"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// stressPackage is the load that the guests of some tests are under, besides their own. Its program is one file and the
// libraries that it is linked with; what else its package depends on (drivers for graphics) is not fetched.
const stressPackage = "stress-ng"

// stressManifest says in the cache which files of which packages these are.
const stressManifest = "stress.json"

// stressFiles are files by their path in the guest; the values are relative to the cache.
type stressFiles map[string]string

// StressInitrd returns an archive that may stand before GuestInitrd in one file, as the kernel allows it: stress-ng and
// its libraries, not compressed, since an emulated guest is slow at that. It fetches what the cache lacks.
func (p *Pieces) StressInitrd(progress io.Writer) ([]byte, error) {
	files, err := p.findStress()
	if errors.Is(err, fs.ErrNotExist) {
		files, err = p.fetchStress(progress)
	}
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	a := NewArchive(&out)
	for _, inside := range slices.Sorted(maps.Keys(files)) {
		if err := a.Copy(inside, filepath.Join(p.cache, files[inside])); err != nil {
			return nil, err
		}
	}
	if err := a.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// findStress returns what an earlier fetchStress left; the error wraps fs.ErrNotExist if any of it is missing.
func (p *Pieces) findStress() (stressFiles, error) {
	b, err := os.ReadFile(filepath.Join(p.cache, stressManifest))
	if err != nil {
		return nil, fmt.Errorf("lab: reading the cache: %w", err)
	}
	var files stressFiles
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, fmt.Errorf("lab: %s is damaged; remove it: %w", filepath.Join(p.cache, stressManifest), err)
	}
	for _, f := range files {
		if _, err := os.Stat(filepath.Join(p.cache, f)); err != nil {
			return nil, fmt.Errorf("lab: the cache has lost a piece: %w", err)
		}
	}
	return files, nil
}

func (p *Pieces) fetchStress(progress io.Writer) (stressFiles, error) {
	unlock, err := lock(filepath.Join(p.cache, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	l := linker{cache: p.cache, progress: progress, packages: map[string]aPackage{}, libraries: map[string]library{}}
	if err := l.fetch(stressPackage); err != nil {
		return nil, err
	}
	files := stressFiles{}
	program := filepath.Join(l.packages[stressPackage].dir, "usr/bin/stress-ng")
	if err := l.link(library{program, stressPackage}, files); err != nil {
		return nil, err
	}
	files["/bin/stress-ng"] = program
	b, err := json.MarshalIndent(files, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := replaceFile(filepath.Join(p.cache, stressManifest), b); err != nil {
		return nil, err
	}
	return files, nil
}

// A linker finds the libraries of a program in the packages that its own depends on, as the loader would find them
// where these are installed.
type linker struct {
	cache     string
	progress  io.Writer
	packages  map[string]aPackage // that are in the cache, by name
	libraries map[string]library  // that they have, by file name
}

// library is a library or a program.
type library struct {
	file  string // relative to the cache
	owner string // its package
}

// fetch has packages in the cache and their libraries known.
func (l *linker) fetch(names ...string) error {
	found, err := fetchPackages(l.cache, l.progress, names...)
	if err != nil {
		return err
	}
	for name, p := range found {
		l.packages[name] = p
		err := filepath.WalkDir(filepath.Join(l.cache, p.dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.Contains(d.Name(), ".so") {
				return err
			}
			rel, err := filepath.Rel(l.cache, path)
			if _, have := l.libraries[d.Name()]; !have {
				l.libraries[d.Name()] = library{rel, name}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// link adds to files what a library needs.
func (l *linker) link(lib library, files stressFiles) error {
	f, err := elf.Open(filepath.Join(l.cache, lib.file))
	if err != nil {
		return fmt.Errorf("lab: %s: %w", lib.file, err)
	}
	defer f.Close()
	needs, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("lab: %s: %w", lib.file, err)
	}
	for _, name := range needs {
		inside := path.Join("/lib", name)
		if strings.HasPrefix(name, "ld-linux") {
			inside = path.Join("/lib64", name) // where programs look for it
		}
		if files[inside] != "" {
			continue
		}
		if err := l.find(name, lib.owner); err != nil {
			return err
		}
		files[inside] = l.libraries[name].file
		if err := l.link(l.libraries[name], files); err != nil {
			return err
		}
	}
	return nil
}

// find has a library known that a file of the package owner needs.
func (l *linker) find(name, owner string) error {
	if _, have := l.libraries[name]; have {
		return nil
	}
	var unknown []string
	for _, p := range l.packages[owner].depends {
		if _, have := l.packages[p]; !have {
			unknown = append(unknown, p)
		}
	}
	if err := l.fetch(unknown...); err != nil {
		return err
	}
	if _, have := l.libraries[name]; !have {
		return fmt.Errorf("lab: %s of the package %s is in none that it depends on: %s", name, owner, strings.Join(l.packages[owner].depends, ", "))
	}
	return nil
}
