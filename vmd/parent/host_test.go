package parent

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/internal/vmop"
	"vmd/vmd/config"
)

// TestTTY: the pty of a VM passes bytes on as they are, and belongs to the VM's
// owner.
func TestTTY(t *testing.T) {
	testenv.Root(t)
	for _, c := range []struct {
		owner config.Owner
		gid   uint32
		mode  uint32
	}{
		{config.Owner{UID: 1234, GID: 5678, HasGID: true}, 5678, 0o660},
		{config.Owner{UID: 1234}, ttyGroup(t), 0o620},
	} {
		p, err := openTTY(&c.owner)
		if err != nil {
			t.Fatal(err)
		}
		defer p.close()
		var st unix.Stat_t
		if err := unix.Stat(p.name, &st); err != nil {
			t.Fatal(err)
		}
		if st.Uid != 1234 || st.Gid != c.gid || st.Mode&0o777 != c.mode {
			t.Errorf("%s: %d:%d %o, want 1234:%d %o", p.name, st.Uid, st.Gid, st.Mode&0o777, c.gid, c.mode)
		}
		const bytes = "a\r\n\x03\x04b"
		p.master.WriteString(bytes)
		got := make([]byte, len(bytes))
		if n, err := p.slave.Read(got); string(got[:n]) != bytes {
			t.Errorf("read %q, %v", got[:n], err)
		}
	}
}

func ttyGroup(t *testing.T) uint32 {
	gid, mode := ttyAccess(&config.Owner{})
	if mode != 0o620 {
		t.Skip("this machine has no group tty")
	}
	return uint32(gid)
}

// TestAdoptTTY: what a VM process says is its pty must be one.
func TestAdoptTTY(t *testing.T) {
	p, err := newPTY()
	if err != nil {
		t.Fatal(err)
	}
	if a := adoptTTY(p.master, p.slave); a == nil || a.name != p.name {
		t.Errorf("%+v, want %s", a, p.name)
	}
	p.close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	if a := adoptTTY(r, w); a != nil {
		t.Errorf("a pipe is taken for %s", a.name)
	}
	for late := time.Now().Add(patience); ; runtime.Gosched() {
		if _, err := w.Stat(); err != nil {
			break
		}
		if time.Now().After(late) {
			t.Fatal("what is no pty is left open")
		}
	}
	if a := adoptTTY(nil, nil); a != nil {
		t.Errorf("nothing is taken for %s", a.name)
	}
}

func TestSubRange(t *testing.T) {
	for text, want := range map[string]subRange{
		"":                                     {},
		"alice:100000:65536\n":                 {},
		"alice:1:2\n_vmd:200000:1000\n":        {200000, 1000},
		"_vmd:0:1000\n_vmd:300000:10":          {300000, 10},
		"_vmd:4294967295:2\n":                  {},
		"_vmd:x:2\n_vmd:1\n_vmd:1:-1\n_vmd:::": {},
	} {
		if got := readSubRange(tempFile(t, text)); got != want {
			t.Errorf("%q: %v, want %v", text, got, want)
		}
	}
	r := ids{uid: 7, gid: 8}
	if uid, gid := r.vm(3); uid != 7 || gid != 8 {
		t.Errorf("without a range: %d %d", uid, gid)
	}
	r.uids = subRange{1000, 10}
	if uid, gid := r.vm(13); uid != 1003 || gid != 8 {
		t.Errorf("with one: %d %d", uid, gid)
	}
}

// TestGroupsOfPeer: the groups are those of the user database; for a user that
// it does not have, those of the process.
func TestGroupsOfPeer(t *testing.T) {
	var c groupCache
	root := vmop.Peer{UID: 0, GID: 12345, Groups: []uint32{12345}}
	c.fill(&root)
	if !slices.Contains(root.Groups, 0) || slices.Contains(root.Groups, 12345) {
		t.Errorf("root is in %v", root.Groups)
	}
	nobody := vmop.Peer{UID: 3999999999, GID: 42, Groups: []uint32{43}}
	c.fill(&nobody)
	if !slices.Equal(nobody.Groups, []uint32{43, 42}) {
		t.Errorf("a user who is in no file is in %v", nobody.Groups)
	}
}

// TestOneDaemon: two daemons do not share directories.
func TestOneDaemon(t *testing.T) {
	p := fakeParent(t)
	if _, err := p.paths.prepare(); err == nil || !strings.Contains(err.Error(), "another vmd") {
		t.Errorf("second: %v", err)
	}
	for _, c := range []struct {
		path string
		mode os.FileMode
	}{{p.paths.run, 0o711}, {filepath.Join(p.paths.run, "vm"), 0o700}, {p.paths.state, 0o700}} {
		if st, err := os.Stat(c.path); err != nil || st.Mode().Perm() != c.mode {
			t.Errorf("%s: %v %v", c.path, st.Mode(), err)
		}
	}
}

// TestBadState: a daemon that cannot read its state does not number VMs anew.
func TestBadState(t *testing.T) {
	p := fakeParent(t)
	if err := os.WriteFile(p.paths.stateFile(), []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := p.loadState(); err == nil || !strings.Contains(err.Error(), p.paths.stateFile()) {
		t.Errorf("error %v", err)
	}
}

// TestFindVM: the process that listens on a VM's socket is found by that socket.
func TestFindVM(t *testing.T) {
	path := filepath.Join(t.TempDir(), "7")
	r := ids{uid: 4001, uids: subRange{100000, 10}}
	for uid, want := range map[uint32]bool{4001: true, 4002: false, 99999: false, 100000: true, 100009: true, 100010: false} {
		if r.ours(uid) != want {
			t.Errorf("user %d is ours: %v", uid, !want)
		}
	}
	if pid := findVM(path, r.ours); pid != 0 {
		t.Errorf("nobody is %d", pid)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A process that holds it: it waits on its standard input.
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	child, err := os.StartProcess("/bin/cat", []string{"cat"}, &os.ProcAttr{Files: []*os.File{in, os.Stderr, os.Stderr, f}})
	if err != nil {
		t.Skip(err)
	}
	in.Close()
	if pid := findVM(path, r.ours); pid != child.Pid {
		t.Errorf("found %d, want %d", pid, child.Pid)
	}
	if pid := findVM(path, func(uid uint32) bool { return uid != uint32(os.Getuid()) }); pid != 0 {
		t.Errorf("found %d, which is a stranger's", pid)
	}
	out.Close()
	// It ends, and is a zombie until somebody waits for it.
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_PID, child.Pid, &info, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(zombies(os.Getpid()), child.Pid) {
		t.Errorf("%d is not among the zombies", child.Pid)
	}
	reapOne(child.Pid)
	if slices.Contains(zombies(os.Getpid()), child.Pid) {
		t.Errorf("%d is still there", child.Pid)
	}
}
