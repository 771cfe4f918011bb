package statefile

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

type value struct {
	N    int
	Text string
}

func TestRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	var v value
	if old, err := Load(path, &v); old != nil || err != nil || v != (value{}) {
		t.Fatalf("no file: %v %v %+v", old, err, v)
	}
	for n := 1; n <= 3; n++ {
		if err := Save(path, value{n, "héllo\n"}); err != nil {
			t.Fatal(err)
		}
		v = value{}
		if old, err := Load(path, &v); old != nil || err != nil || v != (value{n, "héllo\n"}) {
			t.Fatalf("%v %v %+v", old, err, v)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", st.Mode(), err)
	}
}

// TestPowerCut ends Save in the middle of what it writes, and between its
// steps: there is always a whole value, the one before or the one after.
func TestPowerCut(t *testing.T) {
	before, after := value{1, "before"}, value{2, "after"}
	data, err := encode(after)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what, path string, want ...value) {
		t.Helper()
		var v value
		old, err := Load(path, &v)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		for _, w := range want {
			if v == w {
				return
			}
		}
		t.Fatalf("%s: read %+v (%v)", what, v, old)
	}
	setUp := func() string {
		path := filepath.Join(t.TempDir(), "state")
		for name, v := range map[string]value{path + ".prev": {0, "long ago"}, path: before} {
			data, err := encode(v)
			if err == nil {
				err = os.WriteFile(name, data, 0o600) // as two Saves do, which would wait for the disk
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	for n := range len(data) + 1 { // the new file is written in part
		path := setUp()
		if err := os.WriteFile(path+".new", data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		check("write", path, before)
		if err := Save(path, after); err != nil { // and what is left is no hindrance
			t.Fatal(err)
		}
		check("after", path, after)
	}
	path := setUp() // cut between the two renames
	if err := keepPrevious(path); err != nil {
		t.Fatal(err)
	}
	check("rename", path, before)
	for n := range len(data) { // a file system that reorders: the file is torn
		path := setUp()
		if err := keepPrevious(path); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil { // the same file as .prev by now
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		check("torn", path, before)
	}
}

// TestPowerCutOfNames: what Save does to names is durable only when the folder
// is, and until then a file system may have done any of it and not the rest.
func TestPowerCutOfNames(t *testing.T) {
	older, before, after := value{0, "long ago"}, value{1, "before"}, value{2, "after"}
	file := func(v value) []byte {
		data, err := encode(v)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	type names map[string][]byte
	for _, state := range []value{before, after} { // the rename over state
		for _, prev := range []*value{nil, &older, &before} { // the one over state.prev; nil: the first Save of all
			for _, left := range []names{{}, {"state.new": file(after)}, {"state.prev.new": file(before)}, {"state.new": file(after), "state.prev.new": file(before)}} {
				dir := t.TempDir()
				all := names{"state": file(state)}
				if prev != nil {
					all["state.prev"] = file(*prev)
				}
				maps.Copy(all, left)
				for name, data := range all {
					if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				var v value
				path := filepath.Join(dir, "state")
				if old, err := Load(path, &v); old != nil || err != nil || v != state {
					t.Errorf("with state %v, prev %v and %d more: %v %v %+v", state, prev, len(left), old, err, v)
				}
				if err := Save(path, after); err != nil { // what is left is no hindrance
					t.Errorf("with state %v, prev %v and %d more: %v", state, prev, len(left), err)
				}
				if old, err := Load(path, &v); old != nil || err != nil || v != after {
					t.Errorf("saved again: %v %v %+v", old, err, v)
				}
			}
		}
	}
}

// TestDiskFull: a Save that fails leaves what was there, for as long as it fails.
func TestDiskFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	before := value{1, "before"}
	if err := Save(path, before); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/full", path+".new"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := Save(path, value{2, "after"}); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("on a full disk: %v", err)
		}
		var v value
		if old, err := Load(path, &v); old != nil || err != nil || v != before {
			t.Fatalf("after that: %v %v %+v", old, err, v)
		}
	}
}

func TestDamage(t *testing.T) {
	data, err := encode(value{7, "seven"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range data {
		bad := append([]byte(nil), data...)
		bad[i] ^= 0x20
		var v value
		if err := decode(bad, &v); !errors.Is(err, ErrDamaged) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
}

// TestNothingReadable: when nothing can be read the files stay for somebody to
// look at, and Load does not pretend that there were none.
func TestNothingReadable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	for _, name := range []string{path, path + ".prev"} {
		if err := os.WriteFile(name, []byte("junk"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var v value
	if _, err := Load(path, &v); !errors.Is(err, ErrDamaged) {
		t.Fatalf("error %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, &v); !errors.Is(err, ErrDamaged) {
		t.Fatalf("only .prev: error %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	good, _ := encode(value{7, "seven"})
	f.Add(good)
	f.Add([]byte("vmd-state 1 00 0\n"))
	f.Add([]byte("vmd-state 2 00 0\n{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var v value
		if err := decode(data, &v); err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatalf("error %v", err)
		}
	})
}
