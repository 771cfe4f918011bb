package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// sbin holds the folders with tools that an ordinary PATH lacks.
var sbin = []string{"/usr/local/sbin", "/usr/sbin", "/sbin"}

// Tool needs a program of the host, a referee as qemu-img or mandoc, and
// returns its path. RequireVar may name it.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := LookTool(name)
	if err != nil {
		missing(t, []string{name}, "needs the program %s: %v", name, err)
	}
	return path
}

// LookTool is exec.LookPath that also looks where administrators' programs are.
func LookTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	if err == nil || strings.Contains(name, "/") {
		return path, err
	}
	for _, dir := range sbin {
		p := filepath.Join(dir, name)
		if unix.Access(p, unix.X_OK) == nil {
			return p, nil
		}
	}
	return "", err
}

// hasModule reports whether the running kernel has the module name, loaded,
// built in, or in its folder of modules.
func hasModule(name string) bool {
	if _, err := os.Stat("/sys/module/" + name); err == nil {
		return true
	}
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	dir := "/lib/modules/" + unix.ByteSliceToString(u.Release[:])
	for _, list := range []string{"modules.dep", "modules.builtin"} {
		b, err := os.ReadFile(filepath.Join(dir, list))
		if err == nil && strings.Contains(string(b), "/"+name+".ko") {
			return true
		}
	}
	return false
}
