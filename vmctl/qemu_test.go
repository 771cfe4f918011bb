package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"vmd/internal/testenv"
	"vmd/vmctl/cmd"
)

// qemu-img finds nothing wrong with our images, and the same in them.
func TestImagesAgainstQemu(t *testing.T) {
	qemu := testenv.Tool(t, "qemu-img")
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(qemu, args...).CombinedOutput(); err != nil {
			t.Errorf("qemu-img %q: %v\n%s", args, err, out)
		}
	}
	create := func(args ...string) {
		t.Helper()
		var errs bytes.Buffer
		if st := cmd.Main(append([]string{"create"}, args...), nil, io.Discard, &errs); st != 0 {
			t.Fatalf("create %q: exit status %d\n%s", args, st, errs.Bytes())
		}
	}
	content := make([]byte, 3<<20)
	for i := range content {
		if i>>16&1 == 0 { // holes between
			content[i] = byte(i*7 + i>>9)
		}
	}
	if err := os.WriteFile(at("src"), content, 0o600); err != nil {
		t.Fatal(err)
	}
	create("-s", "3G", at("new.qcow2"))
	create("-i", at("src"), at("base.qcow2"))
	create("-b", at("base.qcow2"), at("over.qcow2"))
	create("-i", at("over.qcow2"), at("flat.img"))
	for _, name := range []string{"new.qcow2", "base.qcow2", "over.qcow2"} {
		run("check", at(name))
	}
	for _, name := range []string{"base.qcow2", "over.qcow2", "flat.img"} {
		run("compare", at("src"), at(name))
	}
	// And theirs: compressed, and by an old version.
	run("convert", "-c", "-O", "qcow2", at("src"), at("packed.qcow2"))
	run("convert", "-O", "qcow2", "-o", "compat=0.10", at("src"), at("old.qcow2"))
	for _, name := range []string{"packed", "old"} {
		create("-i", at(name+".qcow2"), at(name+".img"))
		run("compare", at("src"), at(name+".img"))
	}
}
