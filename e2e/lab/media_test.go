package lab

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"vmd/internal/testenv"
)

// The disk is what GRUB's boot sector expects: its core image behind it, and a
// file system in the partition of the table.
func TestDiskHasGRUBAndPartition(t *testing.T) {
	testenv.Tool(t, "grub-mkimage")
	testenv.Tool(t, "mke2fs")
	if _, err := os.Stat(grubFiles); err != nil {
		t.Skipf("needs the package grub-pc-bin: %v", err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, GuestMemtest), []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := buildDisk(dir); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, GuestDisk))
	if err != nil {
		t.Fatal(err)
	}
	if len(b) != diskSectors*512 || b[510] != 0x55 || b[511] != 0xaa {
		t.Fatalf("%d bytes, signature %x", len(b), b[510:512])
	}
	le := binary.LittleEndian
	entry := b[446:]
	if first, n := le.Uint32(entry[8:]), le.Uint32(entry[12:]); first != diskFirst || n != diskSectors-diskFirst {
		t.Errorf("partition of %d sectors from %d", n, first)
	}
	if other := b[462:510]; !bytes.Equal(other, make([]byte, len(other))) {
		t.Errorf("further partitions: %x", other)
	}
	if magic := le.Uint16(b[diskFirst*512+1024+56:]); magic != 0xef53 {
		t.Errorf("magic of the file system %#x", magic)
	}
	if !bytes.Contains(b[diskFirst*512:], []byte("a program")) || !bytes.Contains(b[diskFirst*512:], []byte(diskMenu)) {
		t.Error("the file system lacks a file")
	}
	for _, left := range []string{"tree", "core.img"} {
		if _, err := os.Stat(filepath.Join(dir, left)); err == nil {
			t.Errorf("%s is left", left)
		}
	}
}

func TestLookOtherTakesTheLast(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"xen-4.17-amd64.gz", "xen-4.20-amd64.gz", "other"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := lookOther(filepath.Join(dir, "xen-*-amd64.gz")), filepath.Join(dir, "xen-4.20-amd64.gz"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := lookOther(filepath.Join(dir, "mach-*")); got != "" {
		t.Errorf("found %q", got)
	}
}
