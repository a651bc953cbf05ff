package labvm

import (
	"bytes"
	"debug/elf"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
)

// resolveModules returns the files of the named kernel modules and of all that they depend on, in an order in which
// they can be inserted. A dependency that no file provides is built into the kernel or missing; the kernel would say
// which, so it is an error here only for a module that was asked for by name.
//
// Debian's package has no modules.dep (its installation would run depmod); what a module needs stands in its own
// .modinfo section.
func resolveModules(dir string, names []string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(p, ".ko") {
			files[moduleName(filepath.Base(p))] = p
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("lab: kernel modules: %w", err)
	}
	var order []string
	seen := map[string]bool{}
	var add func(name string) error
	add = func(name string) error {
		file, ok := files[name]
		if seen[name] || !ok {
			return nil
		}
		seen[name] = true
		needs, err := moduleDepends(file)
		if err != nil {
			return err
		}
		for _, need := range needs {
			if err := add(need); err != nil {
				return err
			}
		}
		order = append(order, file)
		return nil
	}
	for _, name := range names {
		name = moduleName(name)
		if _, ok := files[name]; !ok {
			return nil, fmt.Errorf("lab: no kernel module %q in %s", name, dir)
		}
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// moduleName is the name by which the kernel knows a module file: kvm-amd.ko is kvm_amd.
func moduleName(file string) string {
	return strings.ReplaceAll(strings.TrimSuffix(file, ".ko"), "-", "_")
}

func moduleDepends(file string) ([]string, error) {
	f, err := elf.Open(file)
	if err != nil {
		return nil, fmt.Errorf("lab: kernel module %s: %w", file, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("lab: kernel module %s has no .modinfo section", file)
	}
	data, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("lab: kernel module %s: %w", file, err)
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			return strings.Split(moduleName(list), ","), nil
		}
	}
	return nil, nil
}
