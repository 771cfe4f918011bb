package statefile

import (
	"errors"
	"os"
	"path/filepath"
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
		for _, v := range []value{{0, "long ago"}, before} {
			if err := Save(path, v); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	for n := 0; n < len(data); n += 5 { // the new file is written in part
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
	for n := 0; n < len(data); n += 5 { // a file system that reorders: the file is torn
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
