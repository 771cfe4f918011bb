package config

import (
	"os"
	"path/filepath"
	"testing"

	"vmd/internal/testenv"
)

// TestRealpath: it is what the kernel would make of a path.
func TestRealpath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	os.MkdirAll(filepath.Join(dir, "a/b"), 0o755)
	os.WriteFile(filepath.Join(dir, "a/b/f"), nil, 0o644)
	os.Symlink("a/b", filepath.Join(dir, "rel"))
	os.Symlink(dir+"/a", filepath.Join(dir, "abs"))
	os.Symlink("../../rel/f", filepath.Join(dir, "a/b/up"))
	os.Symlink("loop", filepath.Join(dir, "loop"))
	for _, name := range []string{
		"a/b/f", "rel/f", "abs/b/f", "abs/b/up", "rel/../b/f", "rel//f", "rel/./up", "a/b/",
		"loop", "none", "rel/none", "a/b/f/x", "", "abs",
	} {
		path := dir + "/" + name
		want, wantErr := filepath.EvalSymlinks(filepath.Clean(path))
		got, err := Realpath(path)
		if got != want || (err == nil) != (wantErr == nil) {
			t.Errorf("Realpath(%s) = %q, %v; want %q, %v", name, got, err, want, wantErr)
		}
	}
	if got, err := Realpath("/"); got != "/" || err != nil {
		t.Errorf("root: %q, %v", got, err)
	}
}

// A user's link does not make another's file a disk of the user's VM.
func TestRealpathOfAnothersLink(t *testing.T) {
	testenv.Root(t)
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	const alice = 1234
	secret, own, link := filepath.Join(dir, "secret"), filepath.Join(dir, "own"), filepath.Join(dir, "link")
	os.WriteFile(secret, nil, 0o600)
	os.WriteFile(own, nil, 0o600)
	os.Chown(own, alice, alice)
	for _, tt := range []struct {
		to    string
		owner int
		ok    bool
	}{{secret, 0, true}, {secret, alice, false}, {own, alice, true}, {own, alice + 1, false}} {
		os.Remove(link)
		if err := os.Symlink(tt.to, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(link, tt.owner, tt.owner); err != nil {
			t.Fatal(err)
		}
		if got, err := Realpath(link); (err == nil) != tt.ok {
			t.Errorf("link of %d to %s: %s, %v", tt.owner, filepath.Base(tt.to), got, err)
		}
	}
}
