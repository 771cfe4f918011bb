package house

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Everybody whose work the programs contain is named, in the version used.
func TestNoticesNameEveryModule(t *testing.T) {
	notices, err := os.ReadFile("../../NOTICES.md")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}", "./vmd", "./vmctl")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		path, version, ok := strings.Cut(line, " ")
		if !ok || seen[path] {
			continue
		}
		seen[path] = true
		path = strings.Replace(path, "libcap/psx", "libcap/cap, psx", 1) // one row for the two
		found := false
		for _, row := range strings.Split(string(notices), "\n") {
			found = found || strings.HasPrefix(row, "| "+path) && strings.Contains(row, "| "+version+" |")
		}
		if !found {
			t.Errorf("%s %s is not in NOTICES.md", path, version)
		}
	}
	if len(seen) < 5 {
		t.Errorf("only %d modules found: is the list still made as it was?", len(seen))
	}
}
