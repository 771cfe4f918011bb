package small

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmd/e2e/harness"
	"vmd/internal/testenv"
)

// example is a command of vmctl.8, what it takes, and what it then prints.
type example struct {
	command string
	prepare func(h *exampleHost) // nil: nothing more than those before have left
	more    string               // typed behind it, to see what it did
	again   bool                 // it is typed again until it prints that: vmctl waits a moment for a guest
	want    string               // of both streams; a regular expression
}

// examples are those of the section EXAMPLES, in its order: one builds on the
// other, as for somebody who reads it.
var examples = []example{
	{command: "vmctl create disk.img -s 4.5G", want: `^vmctl: raw imagefile created\n$`},
	{command: "vmctl start -c web", want: `^Connected to /dev/pts/\d+ \(speed 115200\)\r\n`},
	{
		command: "vmctl start -m 1G -L -d disk.img -b vmlinuz \\\n\t--initrd initrd.img --cmdline \"console=ttyS0\" lab",
		prepare: func(h *exampleHost) {
			h.file("vmlinuz", h.read(h.kernels["obey"]))
			h.file("initrd.img", []byte("any file"))
		},
		want: `^vmctl: started vm 3 successfully, tty /dev/pts/\d+\n$`,
	},
	{command: "echo uname -a | vmctl console web", again: true, want: `(?m)^uname -a$`},
	{command: "vmctl status -r | awk 'NR > 1 { print $NF }'", want: `^web\nlab\n$`},
	{
		command: `vmctl -H a.example.org,b.example.org,10.0.0.3 status | awk '$9 == "crashed"'`,
		prepare: (*exampleHost).fleet,
		want:    `^a\.example\.org .* dead\nb\.example\.org .* dead\n10\.0\.0\.3 .* dead\n$`,
	},
	{command: "vmctl stop -aw", want: `(?m)^stopping vm web: terminated vm 1\n`},
	{
		command: "vmctl wait --for running --timeout 60 web",
		prepare: func(h *exampleHost) { h.vmd.Vmctl("start", "web") },
		want:    `^waiting for vm web: running vm 1\n$`,
	},
	{command: "vmctl stats -s disk -i 5", want: `(?m)^   ID   CPU% .* NAME\n +1 .* web$`},
	{command: "mkfifo back", want: `^$`},
	{
		command: "vmctl send --confirm web <back |\n  ssh other vmctl receive --confirm web >back",
		prepare: (*exampleHost).neighbour,
		more:    "ssh other vmctl status web",
		want:    ` running web\n`,
	},
	{
		command: "vmctl status --json web | jq -r '.vms[0].interfaces[0].address'",
		prepare: func(h *exampleHost) { h.vmd.Vmctl("start", "web") },
		want:    `^100\.64\.\d+\.\d+\n$`,
	},
	{command: ". <(vmctl completion bash)", more: "complete -p vmctl", want: `(?m)^complete .*-F _vmctl vmctl$`},
}

// TestManualExamples runs every command of the section EXAMPLES of vmctl.8, and
// fails for one that is not in examples.
func TestManualExamples(t *testing.T) {
	dir := setUp(t)
	manual := commandsOf(t, "../../vmctl/vmctl.8")
	if len(manual) != len(examples) {
		t.Errorf("%d examples in the manual, %d here", len(manual), len(examples))
	}
	h := newExampleHost(t, dir)
	for i, command := range manual {
		if i >= len(examples) || examples[i].command != command {
			t.Fatalf("example %d of vmctl.8 is not run here:\n%s", i+1, command)
		}
		e := examples[i]
		if e.prepare != nil {
			e.prepare(h)
		}
		out, want := h.run(e.command+"\n"+e.more), regexp.MustCompile(e.want)
		for end := time.Now().Add(harness.Patience); e.again && time.Now().Before(end) && !want.MatchString(out); {
			out = h.run(e.command + "\n" + e.more)
		}
		if !want.MatchString(out) {
			t.Errorf("%s\nprinted\n%q\nwant %s", e.command, out, e.want)
		}
	}
}

// commandsOf returns the commands of a manual's examples as they are typed.
func commandsOf(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, section, found := strings.Cut(string(b), "\n.Sh EXAMPLES\n")
	if !found {
		t.Fatalf("%s has no examples", path)
	}
	section, _, _ = strings.Cut(section, "\n.Sh ")
	var commands []string
	literal := false
	for line := range strings.Lines(section) {
		text := typed(t, strings.TrimSuffix(line, "\n"))
		switch {
		case strings.HasPrefix(line, ".Bd"):
			literal = true
		case strings.HasPrefix(line, ".Ed"):
			literal = false
		case strings.HasPrefix(line, ".Dl "):
			commands = append(commands, unprompted(t, strings.TrimPrefix(text, ".Dl ")))
		case literal && strings.ContainsAny(text[:1], "\t "):
			commands[len(commands)-1] += "\n" + text
		case literal:
			commands = append(commands, unprompted(t, text))
		}
	}
	return commands
}

// typed undoes the escapes of mandoc_char(7).
func typed(t *testing.T, line string) string {
	t.Helper()
	s := strings.NewReplacer(`\(dq`, `"`, `\e`, `\`, `\-`, "-").Replace(line)
	if strings.Count(s, `\`) != strings.Count(line, `\e`) {
		t.Fatalf("an escape of another kind: %s", line)
	}
	return s
}

func unprompted(t *testing.T, line string) string {
	t.Helper()
	if !strings.HasPrefix(line, "$ ") && !strings.HasPrefix(line, "# ") {
		t.Fatalf("no prompt: %s", line)
	}
	return line[2:]
}

// exampleHost has the VMs that the manual speaks of: web, which is in the
// configuration, and one that has crashed.
type exampleHost struct {
	*scriptHost
	dir   string
	snmpd *testenv.MasterAgent
}

func newExampleHost(t *testing.T, dir string) *exampleHost {
	t.Helper()
	h := &exampleHost{dir: dir, snmpd: testenv.Snmpd(t)}
	kernels := tinyKernels(t)
	conf := fmt.Sprintf("agentx path %q\n", h.snmpd.Socket) +
		define("web", kernels["obey"], "disable", "local interface") + define("dead", kernels["fault"], "disable")
	h.scriptHost = &scriptHost{t: t, kernels: kernels, vmd: harness.StartVMD(t, conf)}
	h.vmd.VmctlAs("root", "start", "dead") // which may be gone before the answer
	h.vmd.Await("dead", "crashed")
	return h
}

func (h *exampleHost) file(name string, data []byte) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *exampleHost) read(path string) []byte {
	h.t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	return b
}

// run has bash carry out what somebody types, and returns both streams.
func (h *exampleHost) run(text string) string {
	h.t.Helper()
	if _, err := exec.LookPath("jq"); err != nil { // what it is given, at least
		text = strings.ReplaceAll(text, "jq -r '.vms[0].interfaces[0].address'", `sed -n 's/.*"address": "\(.*\)".*/\1/p'`)
	}
	cmd := exec.Command(testenv.Tool(h.t, "bash"), "-c", text)
	cmd.Dir = h.dir
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+h.dir,
		"PATH="+filepath.Join(h.dir, "bin")+":"+filepath.Dir(harness.Program(h.t, "vmctl"))+":"+os.Getenv("PATH"))
	r := harness.Run(h.t, cmd)
	if r.Status != 0 {
		h.t.Errorf("%s: exit status %d", text, r.Status)
	}
	return r.Stdout + r.Stderr
}

// fleet makes three hosts of this one: names, addresses, and an SNMP agent at
// each.
func (h *exampleHost) fleet() {
	h.t.Helper()
	out, err := exec.Command(testenv.Tool(h.t, "ip"), "address", "replace", "10.0.0.3/32", "dev", "lo").CombinedOutput()
	if err != nil {
		h.t.Fatalf("ip: %v: %s", err, out)
	}
	h.file("hosts", []byte("127.0.0.1 localhost\n127.0.0.2 a.example.org\n127.0.0.3 b.example.org\n"))
	over(h.t, filepath.Join(h.dir, "hosts"), "/etc/hosts", 0)
	_, port, err := net.SplitHostPort(h.snmpd.Addr)
	if err != nil {
		h.t.Fatal(err)
	}
	for _, address := range []string{"127.0.0.2", "127.0.0.3", "10.0.0.3"} {
		relay(h.t, net.JoinHostPort(address, port), h.snmpd.Addr)
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "vmctl"), 0o700); err != nil {
		h.t.Fatal(err)
	}
	h.file("vmctl/snmp.conf", []byte("version 2c\ncommunity "+h.snmpd.ReadOnly+"\nport "+port+"\n"))
	name := harness.VMMIB + ".1.4.1.2." + fmt.Sprint(h.vmd.Row("dead").ID)
	harness.WaitFor(h.t, "the vmMIB to be served", func() bool { return harness.Get(h.t, h.snmpd, name).Value == "dead" })
}

// neighbour is another host with a vmd, and a way to run commands there.
func (h *exampleHost) neighbour() {
	h.t.Helper()
	var socket string
	for _, v := range harness.StartBeside(h.t, "").Command("status").Env {
		if strings.HasPrefix(v, "VMD_SOCKET=") {
			socket = v
		}
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "bin"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	ssh := filepath.Join(h.dir, "bin", "ssh")
	if err := os.WriteFile(ssh, []byte("#!/bin/sh\nshift\nexec env "+socket+" \"$@\"\n"), 0o755); err != nil {
		h.t.Fatal(err)
	}
}

// relay answers what comes to a UDP address with what another one says to it.
func relay(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.ListenPacket("udp", from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		b := make([]byte, 64<<10)
		for {
			n, asker, err := l.ReadFrom(b)
			if err != nil {
				return
			}
			if n, err = ask(to, b, n); err == nil {
				l.WriteTo(b[:n], asker)
			}
		}
	}()
}

// ask sends n bytes of b to an address and reads the answer into b.
func ask(to string, b []byte, n int) (int, error) {
	c, err := net.Dial("udp", to)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if _, err := c.Write(b[:n]); err != nil {
		return 0, err
	}
	if err := c.SetReadDeadline(time.Now().Add(harness.Patience)); err != nil {
		return 0, err
	}
	return c.Read(b)
}
