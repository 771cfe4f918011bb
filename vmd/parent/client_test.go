package parent

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
	"vmd/vmd/config"
	"vmd/vmd/parent/registry"
)

// connectAs connects to the socket at path as another user, which takes root.
func connectAs(t *testing.T, path string, uid uint32) (c *net.UnixConn) {
	t.Helper()
	dial := func() (err error) {
		c, err = net.DialUnix("unixpacket", nil, &net.UnixAddr{Name: path, Net: "unixpacket"})
		return err
	}
	var err error
	if uid == uint32(os.Getuid()) {
		err = dial()
	} else {
		err = testenv.AsUser(uid, dial)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func file(t *testing.T, c interface{ File() (*os.File, error) }) *os.File {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// Who a client is the kernel says of a connection to the control socket. Of any
// other socket that control holds it would say root, who made it.
func TestPeerOf(t *testing.T) {
	dir, err := os.MkdirTemp("", "peer")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: path, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for p, mode := range map[string]os.FileMode{dir: 0o755, path: 0o666} {
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
	}
	uids := []uint32{uint32(os.Getuid())}
	if os.Getuid() == 0 {
		uids = append(uids, 12345)
	}
	for _, uid := range uids {
		c := connectAs(t, path, uid)
		a, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		f := file(t, a)
		a.Close()
		if peer, err := peerOf(f, path); err != nil || peer.UID != uid {
			t.Errorf("peer of user %d: %+v, %v", uid, peer, err)
		}
		if hungUp(f) {
			t.Error("the client is still there")
		}
		if peer, err := peerOf(f, path+"2"); err == nil {
			t.Errorf("at another socket: %+v", peer)
		}
		theirs := file(t, c)
		if peer, err := peerOf(theirs, path); err == nil {
			t.Errorf("the client's end: %+v", peer)
		}
		theirs.Close()
		c.Close()
		if !hungUp(f) {
			t.Error("the client has gone")
		}
	}
	a, b, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	defer b.Close()
	plain, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	for what, f := range map[string]*os.File{"a pair": a, "the one that listens": file(t, l), "a file": plain} {
		if peer, err := peerOf(f, path); err == nil {
			t.Errorf("%s: %+v", what, peer)
		}
	}
}

// A control that was taken over cannot ask in the name of somebody who is not
// connected, or not any more.
func TestControlMakesUpAClient(t *testing.T) {
	body, err := imsg.Marshal(vmop.ResetRequest{VMs: true})
	if err != nil {
		t.Fatal(err)
	}
	reset := vmop.Envelope{Client: 5, Type: vmop.Reset, Body: body}
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.send("control", vmop.ClientRequest, 1, reset)
	d.wait(ended(d.roles["control"]))
	d.respawned("control")

	stranger, other, err := imsg.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	d.send("control", vmop.ClientHere, 0, vmop.ClientID{Client: 5}, stranger)
	d.wait(ended(d.roles["control"]))
	d.respawned("control")

	d.join(5, 0)
	d.ends[5].Close()
	d.send("control", vmop.ClientRequest, 1, reset)
	d.result(d.ask(1, vmop.List, vmop.ListRequest{}), vmop.OK) // by now that has been looked at
	d.on(func() {
		if len(d.p.reg.All()) != 1 {
			t.Error("the VM was forgotten for somebody who is gone")
		}
	})
}

// slowFiles are descriptors that take for ever to be closed, until release is
// called.
func slowFiles(t *testing.T, n int) (files []*os.File, release func()) {
	t.Helper()
	var all []func()
	for range n {
		f, r := testenv.SlowFile(t)
		files, all = append(files, f), append(all, r)
	}
	return files, func() {
		for _, r := range all {
			r()
		}
	}
}

// A descriptor that takes for ever to be closed keeps nobody waiting, whatever
// becomes of it; and a user with many of them may send no more.
func TestDescriptorsThatDoNotClose(t *testing.T) {
	d := newDaemon(t, []config.VM{vmDef(t, "x")})
	d.join(7, 1000)
	d.eventually("parent knows the client", func() bool { return d.p.clients[7] != nil })
	files, release := slowFiles(t, maxHeld)
	defer release()
	for i, f := range files {
		names := []string{"kernel"} // who may not start it,
		switch i % 3 {
		case 1:
			names = []string{"sesame"} // what has no such name,
		case 2:
			names = nil // and what has none
		}
		raw, err := imsg.Marshal(vmop.StartRequest{VM: vmNamed("x"), Files: names})
		if err != nil {
			t.Fatal(err)
		}
		d.on(func() {
			d.p.request(vmop.Envelope{Client: 7, Type: vmop.Start, Body: raw}, &imsg.Msg{ID: uint64(i + 1), Files: []*os.File{f}})
		})
	}
	busy := func() vmop.UserFiles {
		return decoded[vmop.UserFiles](d, d.expect("control", vmop.UserBusy))
	}
	if b := busy(); b != (vmop.UserFiles{UID: 1000, Busy: true}) {
		t.Errorf("control was told %+v", b)
	}
	d.roles["control"].die()
	d.respawned("control")
	if b := busy(); !b.Busy {
		t.Error("the next control was not told")
	}
	d.result(d.ask(1, vmop.List, vmop.ListRequest{}), vmop.OK)
	release()
	if b := busy(); b.Busy {
		t.Error("told again")
	}
	d.eventually("all are closed", func() bool { return len(d.p.held) == 0 })
}

// The same of what a run gives back.
func TestRunWithDescriptorsThatDoNotClose(t *testing.T) {
	d := newDaemon(t, nil)
	files, release := slowFiles(t, 2)
	defer release()
	d.on(func() {
		d.p.runs[9] = &run{id: 9, uid: 1000, given: map[string]*os.File{"kernel": files[0]}, files: []named{{"kernel", files[1]}}}
		d.p.endRun(registry.EndRun{ID: 9})
		if d.p.held[1000] != 1 {
			t.Errorf("held: %v", d.p.held)
		}
	})
}

// A control that passes descriptors on although it was told not to is ended.
func TestControlDoesNotHeedBusy(t *testing.T) {
	d := newDaemon(t, nil)
	d.join(7, 1000)
	d.on(func() { d.p.held[1000] = tooManyHeld })
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	d.send("control", vmop.ClientRequest, 1, vmop.Envelope{Client: 7, Type: vmop.Reload}, f)
	d.wait(ended(d.roles["control"]))
}

// A role that says what it should not is replaced, and does not fill the log.
func TestRoleBreaksTheProtocol(t *testing.T) {
	for _, role := range []string{"control", "vmm", "agentx", "priv"} {
		d := newDaemon(t, nil)
		d.send(role, 999, 0, nil)
		d.wait(ended(d.roles[role]))
		d.respawned(role)
	}
}

// What a client sent and nobody received goes with the last copy of its
// connection. Control is to have that; and where it has died, nobody waits.
func TestConnectionThatDoesNotClose(t *testing.T) {
	d := newDaemon(t, nil)
	d.join(7, 1000)
	d.send("control", vmop.ClientGone, 0, vmop.ClientID{Client: 7})
	if c := decoded[vmop.ClientID](d, d.expect("control", vmop.ClientGone)); c.Client != 7 {
		t.Errorf("control may close client %d", c.Client)
	}
	d.eventually("parent to close its copy", func() bool { return hungUp(d.ends[7]) })
	d.join(8, 1000)
	files, release := slowFiles(t, 1)
	defer release()
	raw := int(d.ends[8].Fd())
	if err := unix.Sendmsg(raw, []byte("x"), unix.UnixRights(int(files[0].Fd())), nil, 0); err != nil {
		t.Fatal(err)
	}
	files[0].Close()
	d.roles["control"].die()
	d.respawned("control")
	d.result(d.ask(1, vmop.List, vmop.ListRequest{}), vmop.OK)
}
