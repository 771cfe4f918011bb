package lab

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// programs are what users install, and what tests have guests run: folder of
// the package, path in the machine.
var programs = map[string]string{
	"vmd":                   "/usr/sbin/vmd",
	"vmctl":                 "/usr/sbin/vmctl",
	"e2e/traffic":           "/usr/sbin/traffic",
	"e2e/diskload/diskload": "/usr/sbin/diskload",
}

// ModuleRoot returns the folder with go.mod, from the working folder upwards.
func ModuleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = up
	}
}

// BuildPrograms builds the static programs into dir and returns them as files
// for the machine. A program that the tree does not have is left out:
// the tests that need it fail.
func BuildPrograms(root, dir string) ([]File, error) {
	var files []File
	for pkg, name := range programs {
		if _, err := os.Stat(filepath.Join(root, pkg, "main.go")); err != nil {
			continue
		}
		out := filepath.Join(dir, path.Base(pkg))
		if err := goTool(root, "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", out, "./"+pkg); err != nil {
			return nil, err
		}
		files = append(files, File{Name: name, Path: out, Mode: 0o755})
	}
	return files, nil
}

// BuildTest builds the test binary of a package into dir and returns it with
// the package's testdata, as files for the machine; and its name there. In the
// machine a package's folder is /src/ and its folder in the module.
func BuildTest(root, pkg, dir string) ([]File, string, error) {
	out := filepath.Join(dir, strings.ReplaceAll(pkg, "/", "-")+".test")
	if err := goTool(root, "test", "-c", "-o", out, "./"+pkg); err != nil {
		return nil, "", err
	}
	name := "/src/" + pkg + "/" + filepath.Base(out)
	files, err := FilesBelow(filepath.Join(root, pkg, "testdata"), "/src/"+pkg+"/testdata")
	return append(files, File{Name: name, Path: out, Mode: 0o755}), name, err
}

func goTool(root string, args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// noteSources looks at every source file of the module. The go command keeps
// the result of a test by the files that the test opened: it must run again
// when something changes that only the go build above reads.
func noteSources(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		switch filepath.Ext(name) {
		case ".go", ".s", ".mod", ".sum", ".sh", ".conf":
			_, err = os.Stat(path)
		}
		if os.IsNotExist(err) {
			return nil
		}
		return err
	})
}
