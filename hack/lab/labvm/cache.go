package labvm

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// CacheDir is the folder of the lab's pieces: .cache/lab beside go.mod.
func CacheDir() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	mod := strings.TrimSpace(string(out))
	if err != nil || mod == "" || mod == os.DevNull {
		return "", errors.New("lab: run it inside the project's folder: it keeps its pieces beside go.mod")
	}
	return filepath.Join(filepath.Dir(mod), ".cache", "lab"), nil
}
