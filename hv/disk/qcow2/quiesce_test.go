package qcow2

import (
	"bytes"
	"errors"
	"testing"

	"vmd/hv/disk"
)

// A file that is handed over is as after a Close, without leaks and synced, and
// whoever stays may go on.
func TestQuiesceHandsOver(t *testing.T) {
	t.Parallel()
	const size = 300 << 9
	for _, based := range []bool{false, true} {
		o := Options{Size: size, ClusterBits: 9}
		var data plain
		var base disk.Image
		if based {
			o.BackingName, o.BackingFormat = "base", "raw"
			data = bytes.Repeat([]byte{7}, 100<<9)
			base = data
		}
		f := newImageFile(t, o)
		f.keep = true
		img := mustOpen(t, f, base)
		m := newModel(t, 11, img, data)
		for range 20 {
			for range 30 {
				m.step()
			}
			if err := disk.Quiesce(img); err != nil {
				t.Fatal(err)
			}
			if last := f.journal[len(f.journal)-1]; last.data != nil || last.hole > 0 {
				t.Fatalf("ends with a write to %#x that is not synced", last.off)
			}
			mustBeClean(t, f.data, false)
			other := mustOpen(t, newMem(bytes.Clone(f.data)), base)
			if !bytes.Equal(readAll(t, other), m.want) {
				t.Fatal("who takes over finds another disk")
			}
		}
		m.finish(f, base)
	}
}

// What could not be synced is lost, and handing over never hides that.
func TestQuiesceOfBrokenImage(t *testing.T) {
	t.Parallel()
	f := newImageFile(t, Options{Size: 1 << 20})
	img := mustOpen(t, f, nil)
	mustWrite(t, img, make([]byte, 4096), 0)
	bad := errors.New("bad disk")
	f.fail = func(op string) error {
		if op == "sync" {
			return bad
		}
		return nil
	}
	if err := disk.Quiesce(img); !errors.Is(err, bad) {
		t.Fatalf("quiesce: %v", err)
	}
	f.fail = nil
	if err := disk.Quiesce(img); !errors.Is(err, bad) {
		t.Fatalf("a later quiesce forgets what was lost: %v", err)
	}
}

// An image that is only read is ready at any time, and raw disks are flushed.
func TestQuiesceOfOthers(t *testing.T) {
	t.Parallel()
	f := newImageFile(t, Options{Size: 1 << 20})
	img, err := open(f, nil, true)
	if err != nil {
		t.Fatal(err)
	}
	f.keep = true
	if err := disk.Quiesce(img); err != nil || len(f.journal) > 0 {
		t.Errorf("read-only: %v and %d writes", err, len(f.journal))
	}
	if err := disk.Quiesce(plain(nil)); err != nil {
		t.Error(err)
	}
}
