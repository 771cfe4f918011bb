package harness

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vmd/e2e/lab"
)

// Process is a process of vmd's program.
type Process struct {
	PID  int
	Name string // as ps shows it behind "vmd: "; "parent" for the daemon itself
}

// Processes lists the living processes of the program under test.
func Processes(t testing.TB) []Process {
	t.Helper()
	program, err := os.Stat(Program(t, "vmd"))
	if err != nil {
		t.Fatal(err)
	}
	var list []Process
	exes, _ := filepath.Glob("/proc/[0-9]*/exe")
	for _, exe := range exes {
		// By its inode: a role may see the file under another name.
		if st, err := os.Stat(exe); err != nil || !os.SameFile(st, program) {
			continue
		}
		dir := filepath.Dir(exe)
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		line, err := os.ReadFile(dir + "/cmdline")
		if err != nil {
			continue
		}
		first, _, _ := strings.Cut(string(line), "\x00")
		name, ok := strings.CutPrefix(first, "vmd: ")
		if !ok {
			name = "parent"
		}
		list = append(list, Process{pid, name})
	}
	return list
}

// Role waits for the process of a role, "control", or of a VM, "vm/web", other
// than process not, and returns its number.
func Role(t testing.TB, name string, not int) int {
	t.Helper()
	pid := 0
	WaitFor(t, "the process "+name, func() bool {
		list := Processes(t)
		i := slices.IndexFunc(list, func(p Process) bool { return p.Name == name && p.PID != not })
		if i >= 0 {
			pid = list[i].PID
		}
		return i >= 0
	})
	return pid
}

// Row is a VM as vmctl status --json has it.
type Row struct {
	ID         uint32  `json:"id"`
	Name       string  `json:"name"`
	UUID       string  `json:"uuid"`
	State      string  `json:"state"`
	Changed    bool    `json:"changed"`
	PID        int     `json:"pid"`
	TTY        string  `json:"tty"`
	Uptime     float64 `json:"uptime"`
	LastExit   string  `json:"last_exit"`
	Interfaces []struct {
		MAC     string `json:"mac"`
		Tap     string `json:"tap"`
		Address string `json:"address"`
	} `json:"interfaces"`
}

// Rows returns all VMs by name.
func (d *Daemon) Rows() map[string]Row {
	d.t.Helper()
	var s struct {
		VMs []Row `json:"vms"`
	}
	r := d.VmctlAs("root", "status", "--json")
	if err := json.Unmarshal([]byte(r.Stdout), &s); err != nil {
		d.t.Fatalf("vmctl status --json: %v; status %d: %s%s", err, r.Status, r.Stdout, r.Stderr)
	}
	rows := make(map[string]Row, len(s.VMs))
	for _, v := range s.VMs {
		rows[v.Name] = v
	}
	return rows
}

// Row returns the VM called name.
func (d *Daemon) Row(name string) Row {
	d.t.Helper()
	row, ok := d.Rows()[name]
	if !ok {
		d.t.Fatalf("no VM %s", name)
	}
	return row
}

// Await waits until the VM called name is in a state, and returns it.
func (d *Daemon) Await(name, state string) Row {
	d.t.Helper()
	row := d.Row(name)
	for end := time.Now().Add(Patience); row.State != state; row = d.Row(name) {
		if time.Now().After(end) {
			d.t.Fatalf("waited %v for VM %s to be %s; it is %+v", Patience, name, state, row)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return row
}

// Remains lists what VMs hold of the host: taps, sockets, control groups and
// processes. Without a VM that runs there is none.
func Remains(t testing.TB) []string {
	t.Helper()
	var found []string
	taps, _ := filepath.Glob("/sys/class/net/*/tun_flags")
	for _, tap := range taps {
		found = append(found, "tap "+filepath.Base(filepath.Dir(tap)))
	}
	sockets, _ := filepath.Glob("/run/vmd/vm/*")
	found = append(found, sockets...)
	for _, p := range Processes(t) {
		if strings.HasPrefix(p.Name, "vm/") {
			found = append(found, "process "+p.Name)
		}
	}
	return append(found, leaves()...)
}

// leaves lists the control groups of VMs.
func leaves() (found []string) {
	root := lab.Groups()
	if root == "" {
		return nil
	}
	filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil
		}
		if _, err := strconv.Atoi(d.Name()); err == nil && filepath.Base(filepath.Dir(path)) == "vmd" {
			found = append(found, path)
		}
		return nil
	})
	return found
}

// NothingRemains fails the test unless all that VMs held goes.
func NothingRemains(t testing.TB) {
	t.Helper()
	left := Remains(t)
	for end := time.Now().Add(Patience); len(left) > 0; left = Remains(t) {
		if time.Now().After(end) {
			t.Fatalf("left behind: %s", strings.Join(left, ", "))
		}
		time.Sleep(20 * time.Millisecond)
	}
}
