package main

import (
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"vmd/internal/golden"
	"vmd/internal/scaled"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
	"vmd/vmctl/client/clienttest"
	"vmd/vmctl/cmd"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"vmctl": func() { os.Exit(cmd.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

// TestScript runs the files of testdata/script and testdata/common, each with a
// vmd of its own that listens at $VMD_SOCKET. What a script can do with it,
// vmdCommand says. Those of testdata/common are run against a real vmd as well,
// by package e2e/small.
func TestScript(t *testing.T) {
	for _, dir := range []string{"script", "common"} {
		t.Run(dir, func(t *testing.T) { runScripts(t, "testdata/"+dir) })
	}
}

func runScripts(t *testing.T, dir string) {
	testscript.Run(t, testscript.Params{
		Dir:           dir,
		UpdateScripts: golden.Updating(),
		Setup: func(e *testscript.Env) error {
			path := filepath.Join(e.WorkDir, "s")
			e.Setenv(client.SocketVar, path)
			s, err := clienttest.New(path)
			if err != nil {
				return err
			}
			e.Values["vmd"] = s
			e.Defer(s.Close)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"vmd": vmdCommand, "mode": modeCommand, "patch": patchCommand},
	})
}

// vmdCommand is "vmd" in scripts:
//
//	vmd vm ID NAME STATE [FIELD=VALUE …]   there is such a VM
//	vmd stats ID FIELD=VALUE …            the next counters of VM ID
//	vmd answer REQUEST CODE [DETAIL]       the next REQUEST gets this answer
//	vmd silent REQUEST                     a REQUEST ends the connection
//	vmd busy                               clients are turned away
//	vmd asked                              print what was asked since the last time
//	vmd await REQUEST                      until there is a REQUEST
//	vmd gone                               vmd has ended
//	vmd stale                              … and left its socket behind
func vmdCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := ts.Value("vmd").(*clienttest.Server)
	if neg || len(args) == 0 {
		ts.Fatalf("usage: vmd vm|answer|silent|busy|asked|gone|stale …")
	}
	switch op, args := args[0], args[1:]; op {
	case "vm":
		vm, err := parseVM(args)
		ts.Check(err)
		s.Put(vm)
	case "stats":
		id, err := strconv.ParseUint(args[0], 10, 32)
		ts.Check(err)
		st, err := parseStats(args[1:])
		ts.Check(err)
		s.PutStats(uint32(id), st)
	case "answer":
		r := vmop.Result{Code: parseCode(ts, args[1])}
		if len(args) > 2 {
			r.Detail = strings.ReplaceAll(args[2], `\n`, "\n")
		}
		s.Answer(parseType(ts, args[0]), r)
	case "silent":
		s.Silent(parseType(ts, args[0]))
	case "busy":
		s.TurnAway(vmop.Result{Code: vmop.ErrBusy, Detail: "too many clients"})
	case "asked":
		for _, r := range s.Requests() {
			fmt.Fprintln(ts.Stdout(), r)
		}
	case "await":
		s.Await(parseType(ts, args[0]))
	case "gone":
		s.Close()
	case "stale":
		s.Close()
		l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: ts.Getenv(client.SocketVar), Net: "unixpacket"})
		ts.Check(err)
		l.SetUnlinkOnClose(false)
		ts.Check(l.Close())
	default:
		ts.Fatalf("vmd %s: no such operation", op)
	}
}

// modeCommand is "mode FILE MODE BYTES MOST" in scripts: FILE has MODE and BYTES
// bytes, and takes up MOST bytes of storage at most.
func modeCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: mode file mode bytes most")
	}
	st, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%o", st.Mode().Perm()); got != args[1] {
		ts.Fatalf("mode %s, want %s", got, args[1])
	}
	if got := strconv.FormatInt(st.Size(), 10); got != args[2] {
		ts.Fatalf("%s bytes, want %s", got, args[2])
	}
	most, err := strconv.ParseInt(args[3], 10, 64)
	ts.Check(err)
	if used := clienttest.Used(st); used > most {
		ts.Fatalf("%d bytes of storage, want %d at most", used, most)
	}
}

// patchCommand is "patch FILE OFFSET HEX" in scripts: FILE is a copy of ok.qcow2
// with other bytes at OFFSET.
func patchCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: patch file offset hex")
	}
	image, err := os.ReadFile(ts.MkAbs("ok.qcow2"))
	ts.Check(err)
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	b, err := hex.DecodeString(args[2])
	ts.Check(err)
	copy(image[offset:], b)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), image, 0o600))
}

func parseVM(args []string) (vmop.VM, error) {
	if len(args) < 3 {
		return vmop.VM{}, fmt.Errorf("usage: vmd vm id name state [field=value …]")
	}
	id, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return vmop.VM{}, err
	}
	vm := vmop.VM{ID: uint32(id), Name: args[1], CPUs: 1, MemoryBytes: 512 << 20, OwnerGID: -1, Persistent: true}
	for st := vmop.Stopped; ; st++ {
		if st.String() == "unknown" {
			return vm, fmt.Errorf("%s: no such state", args[2])
		}
		if st.String() == args[2] {
			vm.State = st
			break
		}
	}
	for _, a := range args[3:] {
		if err := setField(&vm, a); err != nil {
			return vm, fmt.Errorf("%s: %w", a, err)
		}
	}
	switch vm.State {
	case vmop.Running, vmop.Paused, vmop.Stopping:
		if vm.PID == 0 {
			vm.PID, vm.TTY, vm.Resident, vm.Started = 1000+int(id), fmt.Sprintf("/dev/pts/%d", id), 5<<20, int64(id)
		}
	}
	return vm, nil
}

func setField(vm *vmop.VM, arg string) error {
	key, value, _ := strings.Cut(arg, "=")
	words := strings.Split(value, ",")
	switch key {
	case "tty":
		vm.TTY = value
		return nil
	case "exit":
		vm.LastExit = value
		return nil
	case "kernel", "owner": // of the real vmd's guests
		return nil
	case "encryption": // SEV or SEV-ES
		vm.Encryption = &vmop.Encryption{ES: value == "SEV-ES", Digest: [32]byte{0xab, 31: 0xcd}}
		return nil
	case "changes":
		vm.Changed, vm.Changes = true, words
		return nil
	case "disk":
		vm.Disks = append(vm.Disks, vmop.Disk{Path: words[0], Format: words[1], Size: 4831838208, Used: -1})
		return nil
	case "cdrom":
		vm.Disks = append(vm.Disks, vmop.Disk{Path: value, Format: "raw", ReadOnly: true, CDROM: true, Size: -1, Used: -1})
		return nil
	case "nic":
		vm.NICs = append(vm.NICs, parseNIC(words))
		return nil
	}
	n, err := scaled.Parse(value)
	if err != nil {
		return err
	}
	switch key {
	case "pid":
		vm.PID = int(n)
	case "cpus":
		vm.CPUs = int(n)
	case "mem":
		vm.MemoryBytes = uint64(n)
	case "cur":
		vm.Resident = uint64(n)
	case "uid":
		vm.OwnerUID = uint32(n)
	case "gid":
		vm.OwnerGID = n
	case "started":
		vm.Started = n
	case "adhoc":
		vm.Persistent = n == 0
	case "autostart":
		vm.Autostart = n != 0
	case "limit":
		vm.Limits = vmop.Limits{CPUPercent: int(n), MemoryHigh: 1 << 30, IORead: 10 << 20}
	default:
		return fmt.Errorf("no such field")
	}
	return nil
}

// parseNIC is "local" or "SWITCH", and a tap if the VM runs.
func parseNIC(words []string) vmop.NIC {
	n := vmop.NIC{MAC: [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0, 1}, Switch: words[0]}
	if len(words) > 1 {
		n.Tap = words[1]
	}
	if words[0] == "local" {
		n.Switch, n.Local = "", true
		if n.Tap != "" {
			n.Address, n.HostAddress = "100.64.1.3", "100.64.1.2"
		}
	}
	return n
}

// parseStats makes counters; those of disks and interfaces are of the first.
func parseStats(args []string) (vmop.Stats, error) {
	var s vmop.Stats
	var d vmop.DiskStats
	var n vmop.NICStats
	fields := map[string]*uint64{
		"cpu": &s.CPU, "mem": &s.Memory, "reads": &d.ReadOps, "readbytes": &d.ReadBytes, "writes": &d.WriteOps,
		"writebytes": &d.WriteBytes, "flushes": &d.FlushOps, "rx": &n.RxPackets, "rxbytes": &n.RxBytes,
		"tx": &n.TxPackets, "txbytes": &n.TxBytes,
	}
	for _, a := range args {
		key, value, _ := strings.Cut(a, "=")
		v, err := scaled.Parse(value)
		if err != nil {
			return s, fmt.Errorf("%s: %w", a, err)
		}
		switch {
		case key == "time": // milliseconds
			s.Time = v * 1e6
		case key == "exits":
			s.Exits = []uint64{uint64(v), 0, 0, 0}
		case fields[key] != nil:
			*fields[key] = uint64(v)
		default:
			return s, fmt.Errorf("%s: no such field", a)
		}
	}
	s.VCPU, s.Disks, s.NICs = []uint64{s.CPU / 2}, []vmop.DiskStats{d}, []vmop.NICStats{n}
	return s, nil
}

func parseType(ts *testscript.TestScript, name string) vmop.Type {
	types := map[string]vmop.Type{
		"list": vmop.List, "count": vmop.Count, "start": vmop.Start, "stop": vmop.Stop, "wait": vmop.Wait, "pause": vmop.Pause,
		"unpause": vmop.Unpause, "console": vmop.Console, "log": vmop.Log, "load": vmop.Load,
		"reload": vmop.Reload, "reset": vmop.Reset,
	}
	typ, ok := types[name]
	if !ok {
		ts.Fatalf("%s: no such request", name)
	}
	return typ
}

func parseCode(ts *testscript.TestScript, name string) vmop.Code {
	for c := vmop.OK; c < 1000; c++ {
		if c.String() == name {
			return c
		}
	}
	ts.Fatalf("%s: no such code", name)
	return 0
}
