package parent

import (
	"os"
	"path/filepath"
	"testing"

	"vmd/hv/disk/qcow2"
	"vmd/vmd/config"
)

// A guest that writes the header of an image into its raw disk gets no format,
// and so no base, that nobody gave it; another file at that path does.
func TestRawStaysRaw(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	p := fakeParent(t)
	given := map[string]*os.File{}
	format := config.FormatAuto
	look := func() string {
		t.Helper()
		p.cfg.VMs = []config.VM{{Name: "x", Disks: []config.Disk{{Path: path, Format: format}}}}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		o := opener{run: &run{given: given}, images: map[string]image{}, known: map[string]image{}, raw: p.raw}
		im, err := o.inspect("disk0", f, path, format)
		if err != nil {
			t.Fatal(err)
		}
		p.rememberRaw(o.known)
		return im.format
	}
	write := func() {
		t.Helper()
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := qcow2.Create(f, qcow2.Options{Size: 1 << 20, BackingName: "/etc/passwd", BackingFormat: "raw"}); err != nil {
			t.Fatal(err)
		}
	}
	if got := look(); got != "raw" {
		t.Fatalf("at first it is %s", got)
	}
	write()
	if got := look(); got != "raw" {
		t.Errorf("then it is %s", got)
	}
	// A client can say of a file of its own that it has that path.
	if mine, err := os.Open(tempFile(t, "mine")); err != nil {
		t.Fatal(err)
	} else {
		defer mine.Close()
		given["disk0"] = mine
		o := opener{run: &run{given: given}, images: map[string]image{}, known: map[string]image{}, raw: p.raw}
		if _, err := o.inspect("disk0", mine, path, config.FormatRaw); err != nil {
			t.Fatal(err)
		}
		p.rememberRaw(o.known)
		clear(given)
	}
	if got := look(); got != "raw" {
		t.Errorf("after a client's word it is %s", got)
	}
	format = config.FormatQcow2
	if got := look(); got != "qcow2" {
		t.Errorf("with the format said, it is %s", got)
	}
	format = config.FormatAuto
	if got := look(); got != "qcow2" {
		t.Errorf("the operator knew of it, and still it is %s", got)
	}
	if err := os.Rename(path, path+".old"); err != nil { // its inode stays in use
		t.Fatal(err)
	}
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := look(); got != "raw" {
		t.Fatalf("a new file is %s", got)
	}
	if err := os.Rename(path, path+".older"); err != nil {
		t.Fatal(err)
	}
	write()
	if got := look(); got != "qcow2" {
		t.Errorf("another file in its place is %s", got)
	}
}
