package house

import (
	"encoding/json"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// module is the name in go.mod; it is also the name of the daemon's folder.
const module = "vmd"

// pkg is what go list says about a package of this module.
type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	Deps       []string
}

// list runs go list once for all tests.
var list = sync.OnceValues(func() ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Imports,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	var all []pkg
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); err == io.EOF {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
})

func packages(t *testing.T) []pkg {
	t.Helper()
	all, err := list()
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("go list found %d packages", len(all))
	}
	return all
}

// local is the name of a package below the module.
func local(path string) string { return strings.TrimPrefix(path, module+"/") }

// matches reports whether one of patterns is for the package. A name is one
// below the module; with a dot in its first part, or without a package of
// that name there, it is a whole import path.
func matches(path string, patterns []string) bool {
	for _, p := range patterns {
		p, deep := strings.CutSuffix(p, "...")
		p = strings.TrimSuffix(p, "/")
		for _, name := range []string{module + "/" + p, p} {
			if name == p && deep && !strings.Contains(p, ".") {
				continue // "net/..." is our folder, not the standard library's
			}
			if name == p && p == module {
				continue // the daemon's folder, not the module
			}
			if path == name || deep && (p == "" || strings.HasPrefix(path, name+"/")) {
				return true
			}
		}
	}
	return false
}

// root is the folder of the module.
var root = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

// generatedDirs are made by builds and not part of the tree.
var generatedDirs = map[string]bool{".git": true, ".cache": true, "bin": true}

// texts calls f for every text file of the tree, named relative to root.
func texts(t *testing.T, f func(name string, text []byte)) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && generatedDirs[d.Name()]:
			return filepath.SkipDir
		case !d.Type().IsRegular():
			return nil
		}
		b, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // an editor's file that is gone again
		}
		if err != nil {
			return err
		}
		if strings.IndexByte(string(b[:min(len(b), 8000)]), 0) >= 0 {
			return nil // not a text
		}
		name, err := filepath.Rel(root, path)
		files++
		f(name, b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Fatalf("found %d files", files)
	}
}
