package house

import (
	"bytes"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"vmd/e2e/lab"
)

func TestGofmt(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		if filepath.Ext(name) != ".go" {
			return
		}
		want, err := format.Source(text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(text, want) {
			t.Errorf("%s is not formatted: gofmt -w %s", name, name)
		}
	})
}

// unfinished are words for work that was left lying; joined here, so that
// this file is not one of them.
var unfinished = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)

func TestNothingUnfinished(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		for _, loc := range unfinished.FindAllIndex(text, -1) {
			t.Errorf("%s:%d: %s", name, lineOf(text, loc[0]), text[loc[0]:loc[1]])
		}
	})
}

// Nothing in the tree depends on where it was written.
func TestNoPlaceOfItsOwn(t *testing.T) {
	t.Parallel()
	words := []string{root + "/"}
	out, err := exec.Command("go", "env", "GOPROXY").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, proxy := range strings.FieldsFunc(string(out), func(r rune) bool { return r == ',' || r == '|' || r == '\n' }) {
		if u, err := url.Parse(proxy); err == nil && u.Hostname() != "" && u.Hostname() != "proxy.golang.org" {
			words = append(words, u.Hostname())
		}
	}
	texts(t, func(name string, text []byte) {
		for _, word := range words {
			if i := bytes.Index(text, []byte(word)); i >= 0 {
				t.Errorf("%s:%d: names %s", name, lineOf(text, i), word)
			}
		}
	})
}

func lineOf(text []byte, offset int) int { return 1 + bytes.Count(text[:offset], []byte("\n")) }

// maxLines keeps a file to one job.
const maxLines = 600

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		if n := bytes.Count(text, []byte("\n")); filepath.Ext(name) == ".go" && n > maxLines && !ast.IsGenerated(parse(t, name, text)) {
			t.Errorf("%s has %d lines, more than %d", name, n, maxLines)
		}
	})
}

func parse(t *testing.T, name string, text []byte) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestUnsafeHasItsFiles(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		if filepath.Ext(name) != ".go" {
			return
		}
		base := strings.TrimSuffix(strings.TrimSuffix(name, ".go"), "_test")
		for _, spec := range parse(t, name, text).Imports {
			if spec.Path.Value == `"unsafe"` && !strings.HasSuffix(base, "_unsafe") {
				t.Errorf("%s imports unsafe: that is for files named *_unsafe.go", name)
			}
		}
	})
}

func TestPackagesAreExplained(t *testing.T) {
	t.Parallel()
	explained := make(map[string]bool) // folder → has a package comment
	texts(t, func(name string, text []byte) {
		if filepath.Ext(name) != ".go" || strings.Contains(name, "testdata/") {
			return
		}
		// A package of tests only has its comment in a test.
		dir := filepath.Dir(name)
		explained[dir] = explained[dir] || parse(t, name, text).Doc != nil
	})
	for dir, ok := range explained {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestExportedNamesAreExplained(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		if filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/") {
			return
		}
		for _, decl := range parse(t, name, text).Decls {
			for _, missing := range unexplained(decl) {
				t.Errorf("%s: %s has no comment", name, missing)
			}
		}
	})
}

// unexplained returns the exported names of a declaration without a comment.
// One on a group counts for all in it; methods are explained by their
// interface or their name.
func unexplained(decl ast.Decl) []string {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil && d.Name.IsExported() && d.Doc == nil {
			return []string{d.Name.Name}
		}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		var names []string
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Name.IsExported() && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Name.Name)
				}
			case *ast.ValueSpec:
				if s.Names[0].IsExported() && s.Doc == nil && s.Comment == nil {
					names = append(names, s.Names[0].Name)
				}
			}
		}
		return names
	}
	return nil
}

// Tests that only the lab machine can run must get there.
func TestLabHasItsPackages(t *testing.T) {
	t.Parallel()
	needs := []byte("testenv." + "StockKernel(")
	needsToo := []byte("testenv." + "NeedRealKVM(")
	texts(t, func(name string, text []byte) {
		dir := filepath.ToSlash(filepath.Dir(name))
		if !strings.HasSuffix(name, "_test.go") || dir == "e2e" {
			return
		}
		if (bytes.Contains(text, needs) || bytes.Contains(text, needsToo)) && !slices.Contains(lab.Packages, dir) {
			t.Errorf("%s needs the lab, but %q is not in lab.Packages", name, dir)
		}
	})
}

func TestShellScriptsParse(t *testing.T) {
	t.Parallel()
	texts(t, func(name string, text []byte) {
		first, _, _ := bytes.Cut(text, []byte("\n"))
		if !bytes.HasPrefix(first, []byte("#!")) || !bytes.HasSuffix(first, []byte("sh")) {
			return
		}
		cmd := exec.Command("sh", "-n")
		cmd.Stdin = bytes.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
	})
}

// generate finds directives of go generate.
var generate = regexp.MustCompile(`(?m)^//go:generate `)

// What is generated says how: make generate makes it again and wants no
// difference.
func TestGeneratedFilesHaveTheirSource(t *testing.T) {
	t.Parallel()
	generated, sources := make(map[string]string), make(map[string]bool)
	texts(t, func(name string, text []byte) {
		if filepath.Ext(name) != ".go" {
			return
		}
		if ast.IsGenerated(parse(t, name, text)) {
			generated[filepath.Dir(name)] = name
		}
		if generate.Match(text) {
			sources[filepath.Dir(name)] = true
		}
	})
	for dir, name := range generated {
		if !sources[dir] {
			t.Errorf("%s is generated, but %s has no go:generate line", name, dir)
		}
	}
}
