package parent

import (
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/disk/qcow2"
	"vmd/internal/vmop"
)

// makeImage makes a qcow2 image at path, readable by everybody.
func makeImage(t *testing.T, path string, o qcow2.Options) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := qcow2.Create(f, o); err != nil {
		t.Fatal(err)
	}
}

// What an image names as its base may be a guest's doing.
func TestBases(t *testing.T) {
	dir, other := t.TempDir(), t.TempDir()
	os.Chmod(dir, 0o755)
	in := func(name string) string { return filepath.Join(dir, name) }
	const size = 1 << 20
	overlay := func(name, base string) string {
		makeImage(t, in(name), qcow2.Options{Size: size, BackingName: base, BackingFormat: "qcow2"})
		return in(name)
	}
	makeImage(t, in("base"), qcow2.Options{Size: size})
	os.Chmod(in("base"), 0o600)
	public, secret := filepath.Join(other, "public"), filepath.Join(other, "secret")
	makeImage(t, public, qcow2.Options{Size: size})
	makeImage(t, secret, qcow2.Options{Size: size})
	os.Chmod(secret, 0o600)
	os.Symlink(secret, in("link"))
	os.WriteFile(in("text"), []byte("no image"), 0o600)

	overlay("loop", "loop2")
	overlay("loop2", "loop")
	makeImage(t, in("busy"), qcow2.Options{Size: size})
	busy, err := diskFile.open(in("busy")) // some VM's own disk
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	for _, tt := range []struct {
		path  string
		bases int // -1: refused; -2: locked
	}{
		{in("base"), 0},
		{overlay("beside", "base"), 1},
		{overlay("two", "beside"), 2},
		{overlay("three", "two"), 3},
		{overlay("four", "three"), -1}, // five images
		{overlay("elsewhere", public), 1},
		{overlay("hidden", secret), -1},
		{overlay("throughlink", "link"), -1},
		{overlay("missing", "nowhere"), -1},
		{overlay("device", "/dev/zero"), -1},
		{overlay("neighbour", "busy"), -2},
		{overlay("textual", "text"), -1},
		{in("loop"), -1},
	} {
		f, err := os.Open(tt.path)
		if err != nil {
			t.Fatal(err)
		}
		bases, err := openBases(f, tt.path)
		f.Close()
		if err == nil && len(bases) != tt.bases {
			t.Errorf("%s: %d bases, want %d", filepath.Base(tt.path), len(bases), tt.bases)
		}
		want := vmop.ErrDisk
		if tt.bases == -2 {
			want = vmop.ErrDiskLocked
		}
		if err != nil && (tt.bases >= 0 || codeOf(err) != want || bases != nil) {
			t.Errorf("%s: %v (%v), %d files left open", filepath.Base(tt.path), err, codeOf(err), len(bases))
		}
		closeAll(bases)
	}
}
