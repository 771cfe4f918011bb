package privsep

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"vmd/internal/imsg"
)

// The environment of a role process: which role it has, what it is called, and
// whether it logs much.
const (
	envRole    = "VMD_ROLE"
	envName    = "VMD_NAME"
	envVerbose = "VMD_VERBOSE"
)

// ChildSocket is the descriptor at which a role process finds the socket to
// the process that spawned it.
const ChildSocket = 3

// SpawnOptions are what differs between processes of one role.
type SpawnOptions struct {
	Name    string // what ps and the log show; the role's name if empty
	Verbose bool
	// Program is the path of this program; "" is /proc/self/exe.
	Program string
	// CgroupFD, if not nil, is the cgroup v2 directory to start in.
	CgroupFD *os.File
	// Unprivileged makes Spawn keep the role's namespaces shared and Confine
	// do nothing, for tests that do not run as root.
	Unprivileged bool
}

// ExitStatus is how a process ended.
type ExitStatus struct {
	Code   int            // if it exited
	Signal syscall.Signal // if it was killed; 0 otherwise
	CPU    time.Duration  // that all its threads used
}

func (s ExitStatus) String() string {
	if s.Signal != 0 {
		return "killed by " + unix.SignalName(s.Signal)
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Child is a process that was spawned.
type Child struct {
	Role   string
	Name   string
	PID    int
	Conn   *imsg.Conn
	Exited <-chan ExitStatus // one value, once it has been reaped

	proc *os.Process
}

// Kill ends the process at once.
func (c *Child) Kill() { c.proc.Kill() }

// Title is what ps shows of the process called name, and /proc/PID/cmdline.
func Title(name string) string { return "vmd: " + name }

// Spawn starts this program again in the given role, connected by a message
// socket. What the role's entry in Roles says about namespaces is done here;
// the rest the process does itself, in Confine.
func Spawn(role string, o SpawnOptions) (*Child, error) {
	r, ok := Roles[role]
	if !ok {
		return nil, fmt.Errorf("spawn %q: no such role", role)
	}
	if o.Name == "" {
		o.Name = r.Name
	}
	if o.Program == "" {
		o.Program = "/proc/self/exe"
	}
	mine, theirs, err := imsg.Pair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	stdin := os.Stdin // vmm's own is the null device, and it can open no other
	if null, err := os.Open(os.DevNull); err == nil {
		defer null.Close()
		stdin = null
	}
	proc, err := os.StartProcess(o.Program, []string{Title(o.Name)}, &os.ProcAttr{
		Env:   childEnv(r, o),
		Files: []*os.File{stdin, os.Stderr, os.Stderr, theirs},
		Sys:   childAttr(r, o),
	})
	if err != nil {
		mine.Close()
		return nil, fmt.Errorf("spawn %s: %w", o.Name, err)
	}
	conn, err := imsg.New(mine)
	if err != nil {
		proc.Kill()
		return nil, err
	}
	exited := make(chan ExitStatus, 1)
	go reap(proc, exited)
	return &Child{Role: role, Name: o.Name, PID: proc.Pid, Conn: conn, Exited: exited, proc: proc}, nil
}

func childAttr(r Role, o SpawnOptions) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setsid: true}
	if !o.Unprivileged {
		a.Cloneflags = r.Namespaces
		if os.Geteuid() != 0 {
			// vmm is not root: what it may do, it must hand down for its
			// child to jail itself with.
			for _, c := range Roles["vmm"].Caps {
				a.AmbientCaps = append(a.AmbientCaps, uintptr(c))
			}
		}
	}
	if o.CgroupFD != nil {
		a.UseCgroupFD, a.CgroupFD = true, int(o.CgroupFD.Fd())
	}
	return a
}

// childEnv is the whole environment of a role process. The caller's own is no
// business of a daemon's, but for what begins with VMD_ or speaks of the log.
func childEnv(r Role, o SpawnOptions) []string {
	env := []string{
		envRole + "=" + r.Name, envName + "=" + o.Name, "GOTRACEBACK=single",
		// A heap of one megabyte must not cost four because the host backs it
		// with huge pages. Guest memory asks for them by itself.
		"GODEBUG=disablethp=1",
	}
	if o.Verbose {
		env = append(env, envVerbose+"=1")
	}
	if o.Unprivileged {
		env = append(env, envUnconfined+"=1")
	}
	for _, e := range os.Environ() {
		k, _, _ := strings.Cut(e, "=")
		switch k {
		case envRole, envName, envVerbose, envUnconfined:
		default:
			if strings.HasPrefix(k, "VMD_") || k == "JOURNAL_STREAM" {
				env = append(env, e)
			}
		}
	}
	return env
}

func reap(p *os.Process, exited chan<- ExitStatus) {
	st, err := p.Wait()
	s := ExitStatus{Code: 255}
	if err == nil {
		s.Code = st.ExitCode()
		s.CPU = st.UserTime() + st.SystemTime()
		if ws, ok := st.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			s.Signal = ws.Signal()
		}
	}
	exited <- s
}

// capNames lists caps for messages.
func capNames(caps []cap.Value) string {
	var s []string
	for _, c := range caps {
		s = append(s, c.String())
	}
	return strings.Join(s, ",")
}
