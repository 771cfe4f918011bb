package cmd

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// Every name that --json can give is in the manual.
func TestCodeNamesAreInManual(t *testing.T) {
	b, err := os.ReadFile("../vmctl.8")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(b), ".Sh DIAGNOSTICS\n")
	if !ok {
		t.Fatal("the manual has no DIAGNOSTICS")
	}
	section, _, _ = strings.Cut(section, ".Sh ")
	words := map[string]bool{}
	for _, w := range strings.Fields(section) {
		words[strings.TrimRight(w, ".,")] = true
	}
	names := []string{nameUsage, nameNoDaemon, nameNoAccess, nameDisconnected, nameFailed}
	for c := range reasons {
		names = append(names, c.String())
	}
	for _, n := range names {
		if !words[n] {
			t.Errorf("%s is not in the manual", n)
		}
	}
}

func TestHints(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "s")
	if err := os.WriteFile(sock, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(typ vmop.Type, c vmop.Code) error {
		return because(&client.Error{Request: typ, Result: vmop.Result{Code: c}}, "x")
	}
	for _, tt := range []struct {
		name string
		err  error
		want string
	}{
		{"missing socket", &dialError{sock, unix.ENOENT}, "is vmd running?"},
		{"stale socket", &dialError{sock, unix.ECONNREFUSED}, "is vmd running?"},
		{"no right", &dialError{sock, unix.EACCES}, "the socket is for"},
		{"other", &dialError{sock, unix.EMFILE}, ""},
		{"stop too slow", refused(vmop.Stop, vmop.ErrTimeout), "vmctl stop -f"},
		{"wait too slow", refused(vmop.Wait, vmop.ErrTimeout), ""},
		{"programs look at the end", refused(vmop.Start, vmop.ErrRunning), ""},
		{"ours", errors.New("x"), ""},
	} {
		got := (&tool{}).hintFor(tt.err)
		if (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}
