package golden

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// recorder is a test whose failures are looked at.
type recorder struct {
	testing.TB
	failure string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) { r.failure = fmt.Sprintf(format, args...) }

func TestCheck(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.golden")
	if err := os.WriteFile(file, []byte("one\ntwo\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &recorder{TB: t}
	if Check(r, file, "one\ntwo\n"); r.failure != "" {
		t.Errorf("the same: %s", r.failure)
	}
	if Check(r, file, "one\nthree\n"); !strings.Contains(r.failure, file) || !strings.Contains(r.failure, "three") {
		t.Errorf("another line: %q", r.failure)
	}
}

func TestUpdate(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.golden")
	*update = true
	defer func() { *update = false }()
	Check(t, file, "new")
	if b, err := os.ReadFile(file); err != nil || string(b) != "new" {
		t.Errorf("%q, %v", b, err)
	}
}
