package priv

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vmd/internal/imsg"
	"vmd/internal/privsep"
	"vmd/internal/testenv"
	"vmd/internal/vmop"
	"vmd/net/tap"
	"vmd/net/vswitch"
)

// The user that the role runs as in tests, in place of _vmd.
const testID = 64998

// TestMain is the role process when a test has spawned itself as one: what is
// tested is the role as it is confined.
func TestMain(m *testing.M) {
	if privsep.RoleName() == "" {
		os.Exit(m.Run())
	}
	p, err := privsep.Inherit()
	if err == nil {
		p.UID, p.GID = testID, testID
		err = Run(p)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// host is a network namespace with priv in it.
type host struct {
	t     *testing.T
	child *privsep.Child
	id    uint64
}

func newHost(t *testing.T) *host {
	t.Helper()
	testenv.NetNS(t)
	child, err := privsep.Spawn("priv", privsep.SpawnOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h := &host{t: t, child: child}
	t.Cleanup(func() {
		child.Conn.Close() // what ends priv in life, too
		if st := <-child.Exited; st.Code != 0 || st.Signal != 0 {
			t.Errorf("priv: %v", st)
		}
	})
	return h
}

// ask sends a request and decodes the answer into res.
func (h *host) ask(typ vmop.Type, req any, want vmop.Type, res any) []*os.File {
	h.t.Helper()
	h.id++
	if err := h.child.Conn.Send(uint16(typ), h.id, req); err != nil {
		h.t.Fatal(err)
	}
	m, err := h.child.Conn.Recv()
	if err != nil {
		h.t.Fatalf("no answer: %v", err)
	}
	if m.ID != h.id || vmop.Type(m.Type) != want {
		h.t.Fatalf("answer of type %d to request %d; want %d to %d", m.Type, m.ID, want, h.id)
	}
	if err := imsg.Unmarshal(m.Payload, res); err != nil {
		h.t.Fatal(err)
	}
	files := m.TakeFiles()
	h.t.Cleanup(func() {
		for _, f := range files {
			f.Close()
		}
	})
	return files
}

func (h *host) open(r vmop.TapRequest) (vmop.TapResult, []*os.File) {
	h.t.Helper()
	if r.MAC == ([6]byte{}) {
		r.MAC = guestMAC
	}
	var res vmop.TapResult
	files := h.ask(vmop.TapOpen, r, vmop.TapOpened, &res)
	if (res.Code == vmop.OK) != (len(files) > 0) {
		h.t.Errorf("%d descriptors with result %+v", len(files), res)
	}
	return res, files
}

func (h *host) mustOpen(r vmop.TapRequest) (vmop.TapResult, []*os.File) {
	h.t.Helper()
	res, files := h.open(r)
	if res.Code != vmop.OK {
		h.t.Fatalf("open %+v: %v: %s", r, res.Code, res.Detail)
	}
	return res, files
}

func (h *host) setup(r vmop.TapRequest) vmop.TapResult {
	h.t.Helper()
	if r.MAC == ([6]byte{}) {
		r.MAC = guestMAC
	}
	var res vmop.TapResult
	h.ask(vmop.TapSetup, r, vmop.TapReady, &res)
	return res
}

var guestMAC = [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0x12, 0x34}

// wantDetail fails unless the result is an error with all of words in it.
func wantDetail(t *testing.T, code vmop.Code, detail string, want vmop.Code, words ...string) {
	t.Helper()
	if code != want {
		t.Errorf("code %v (%s), want %v", code, detail, want)
	}
	for _, w := range words {
		if !strings.Contains(detail, w) {
			t.Errorf("detail %q lacks %q", detail, w)
		}
	}
}

// links are the names of the interfaces of the namespace, but for lo.
func links(t *testing.T) []string {
	t.Helper()
	ifs, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, i := range ifs {
		if i.Name != "lo" {
			names = append(names, i.Name)
		}
	}
	slices.Sort(names)
	return names
}

// await waits until there are just these links: priv closes its copy of a
// descriptor that it has sent beside its loop, and so may be the last to.
func await(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !slices.Equal(links(t), want); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("links %v, want %v", links(t), want)
		}
	}
}

func TestTapOnABridge(t *testing.T) {
	h := newHost(t)
	br := addBridge(t, "lan-7", 9000)
	res, files := h.mustOpen(vmop.TapRequest{VM: 3, Index: 1, Alias: "vm3-if1-web", Bridge: "lan-7", Locked: true})
	if res.VM != 3 || res.Index != 1 || res.Name != "tap0" || res.MTU != 9000 ||
		res.MAC != vswitch.HostMAC(guestMAC) || res.BridgeIndex != br {
		t.Errorf("got %+v", res)
	}
	a := attrs(t, "tap0")
	if a.Alias != "vm3-if1-web" || a.MasterIndex != br || a.Flags&net.FlagUp != 0 || a.MTU != 9000 || a.Index != res.IfIndex {
		t.Errorf("before its VM is there: %+v", a)
	}
	r := vmop.TapRequest{VM: 3, Index: 1, Name: "tap0", Alias: "vm3-if1-web", Bridge: "lan-7", Locked: true}
	for range 2 { // it may be said again
		if got := h.setup(r); got != res {
			t.Errorf("set up: got %+v, want %+v", got, res)
		}
	}
	if a := attrs(t, "tap0"); a.Flags&net.FlagUp == 0 {
		t.Error("tap is down")
	}
	if got := addresses(t, "tap0"); len(got) != 0 {
		t.Errorf("a bridged tap has addresses %v", got)
	}
	if attrs(t, "lan-7").MTU != 9000 {
		t.Error("the bridge's MTU changed")
	}
	files[0].Close()
	await(t, "lan-7")
}

func TestDataPathTakesTheDescriptor(t *testing.T) {
	h := newHost(t)
	_, files := h.mustOpen(vmop.TapRequest{})
	fd, err := unix.Dup(int(files[0].Fd()))
	if err != nil {
		t.Fatal(err)
	}
	d, err := tap.New(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetOffload(d.Offloads()); err != nil {
		t.Error(err)
	}
	d.Close()
}

func TestLocalInterface(t *testing.T) {
	h := newHost(t)
	r := vmop.TapRequest{VM: 5, Index: 3, Address4: "100.64.5.8/31", Address6: "fd12:3456:789a:bcde:6440:509:0:1/96"}
	res, _ := h.mustOpen(r)
	r.Name = res.Name
	for range 2 {
		if res := h.setup(r); res.Code != vmop.OK {
			t.Fatal(res.Detail)
		}
	}
	got := addresses(t, res.Name)
	if len(got) < 2 || got[0] != r.Address4 || !slices.Contains(got, r.Address6) {
		t.Errorf("addresses %v", got)
	}
}

func TestInterfaceThatIsDown(t *testing.T) {
	h := newHost(t)
	res, _ := h.mustOpen(vmop.TapRequest{Down: true})
	if res := h.setup(vmop.TapRequest{Name: res.Name, Down: true}); res.Code != vmop.OK {
		t.Fatal(res.Detail)
	}
	if a := attrs(t, res.Name); a.Flags&net.FlagUp != 0 {
		t.Error("it is up")
	}
	setUp(t, res.Name)
	if a := attrs(t, res.Name); a.RawFlags&unix.IFF_LOWER_UP != 0 {
		t.Error("it has a carrier")
	}
}

func TestNamedTap(t *testing.T) {
	h := newHost(t)
	res, files := h.mustOpen(vmop.TapRequest{Name: "tap7"})
	if res.Name != "tap7" {
		t.Errorf("got %+v", res)
	}
	busy, _ := h.open(vmop.TapRequest{Name: "tap7"})
	wantDetail(t, busy.Code, busy.Detail, vmop.ErrNetwork, "tap7", "busy")
	files[0].Close()
	await(t)
	h.mustOpen(vmop.TapRequest{Name: "tap7"})
}

// A tap with several queues takes one more from anybody who asks: another VM
// must not become that somebody.
func TestQueuesOfAnotherAreNotShared(t *testing.T) {
	h := newHost(t)
	res, files := h.mustOpen(vmop.TapRequest{Queues: 4})
	if len(files) != 4 {
		t.Fatalf("%d descriptors", len(files))
	}
	busy, _ := h.open(vmop.TapRequest{Name: res.Name, Queues: 4})
	wantDetail(t, busy.Code, busy.Detail, vmop.ErrNetwork, res.Name, "busy")
}

func TestPersistentTapIsAttachedTo(t *testing.T) {
	for _, multi := range []bool{false, true} {
		t.Run(fmt.Sprint("multi-queue ", multi), func(t *testing.T) {
			h := newHost(t)
			addPersistentTap(t, "tap3", multi)
			mac := attrs(t, "tap3").HardwareAddr
			_, files := h.mustOpen(vmop.TapRequest{Name: "tap3", Queues: 2})
			if want := map[bool]int{false: 1, true: 2}[multi]; len(files) != want {
				t.Errorf("%d descriptors, want %d", len(files), want)
			}
			if got := attrs(t, "tap3").HardwareAddr; got.String() != mac.String() {
				t.Errorf("its address became %v", got)
			}
			busy, _ := h.open(vmop.TapRequest{Name: "tap3"})
			wantDetail(t, busy.Code, busy.Detail, vmop.ErrNetwork, "tap3", "busy")
			for _, f := range files {
				f.Close()
			}
			await(t, "tap3")
		})
	}
}

func TestWhatIsMissing(t *testing.T) {
	h := newHost(t)
	addVeth(t, "eth0", "eth1")
	res, _ := h.open(vmop.TapRequest{Bridge: "nobridge"})
	wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, "bridge nobridge", "no such interface")
	res, _ = h.open(vmop.TapRequest{Bridge: "eth0"})
	wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, "eth0", "veth", "not a bridge")
	res, _ = h.open(vmop.TapRequest{VRF: 77})
	wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, "rdomain 77", "VRF")
	res, _ = h.open(vmop.TapRequest{Name: "eth0"})
	wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, "eth0", "not a tap")
	for _, name := range []string{"eth0", "nosuch"} {
		res = h.setup(vmop.TapRequest{Name: name})
		wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, name)
	}
	await(t, "eth0", "eth1")
}

func TestSwitch(t *testing.T) {
	h := newHost(t)
	var res vmop.SwitchResult
	r := vmop.SwitchRequest{Name: "uplink", Bridge: "br9", Alias: "switch1-uplink"}
	h.ask(vmop.SwitchSetup, r, vmop.SwitchReady, &res)
	wantDetail(t, res.Code, res.Detail, vmop.ErrNetwork, `switch "uplink"`, "bridge br9", "no such interface")
	index := addBridge(t, "br9", 1500)
	for _, down := range []bool{false, true, false} {
		r.Down = down
		res = vmop.SwitchResult{}
		h.ask(vmop.SwitchSetup, r, vmop.SwitchReady, &res)
		if res != (vmop.SwitchResult{Name: "uplink", IfIndex: index}) {
			t.Errorf("got %+v", res)
		}
		a := attrs(t, "br9")
		if a.Alias != r.Alias || a.Flags&net.FlagUp != 0 == down {
			t.Errorf("bridge is %+v", a)
		}
	}
}

func TestLinkQuery(t *testing.T) {
	h := newHost(t)
	var res vmop.LinkResult
	h.ask(vmop.LinkQuery, vmop.LinkRequest{Name: "lo"}, vmop.LinkFound, &res)
	if res != (vmop.LinkResult{Name: "lo", IfIndex: 1}) {
		t.Errorf("got %+v", res)
	}
	for _, name := range []string{"nosuch", "", "../..", strings.Repeat("x", 400)} {
		res = vmop.LinkResult{}
		h.ask(vmop.LinkQuery, vmop.LinkRequest{Name: name}, vmop.LinkFound, &res)
		if res != (vmop.LinkResult{Name: name}) {
			t.Errorf("got %+v", res)
		}
	}
}

// Each kind of death leaves nothing: here the descriptor just goes.
func TestNoTapStaysBehind(t *testing.T) {
	h := newHost(t)
	addBridge(t, "br0", 1500)
	for i := range 200 {
		r := vmop.TapRequest{VM: uint32(i), Bridge: "br0"}
		if i%2 == 1 {
			r = vmop.TapRequest{VM: uint32(i), Address4: "100.64.9.2/31"}
		}
		res, files := h.mustOpen(r)
		if res.Name != "tap0" {
			t.Fatalf("cycle %d: %s", i, res.Name)
		}
		r.Name = res.Name
		if res := h.setup(r); res.Code != vmop.OK {
			t.Fatal(res.Detail)
		}
		files[0].Close()
		await(t, "br0")
	}
}

// Garbage is answered too, and priv goes on.
func TestGarbageIsAnswered(t *testing.T) {
	h := newHost(t)
	garbage := imsg.Raw{0xa1, 0x19, 0x10, 0x00, 0x01} // {4096: 1}
	for typ, want := range map[vmop.Type]vmop.Type{
		vmop.TapOpen: vmop.TapOpened, vmop.TapSetup: vmop.TapReady, vmop.SwitchSetup: vmop.SwitchReady,
	} {
		var res struct { // what the results have in common is elsewhere in each
			vmop.TapResult
		}
		if typ == vmop.SwitchSetup {
			var sw vmop.SwitchResult
			h.ask(typ, garbage, want, &sw)
			wantDetail(t, sw.Code, sw.Detail, vmop.ErrInvalid)
			continue
		}
		h.ask(typ, garbage, want, &res.TapResult)
		wantDetail(t, res.Code, res.Detail, vmop.ErrInvalid)
	}
	h.child.Conn.Send(9999, 1, garbage)
	h.mustOpen(vmop.TapRequest{})
}

// Groups are sets for an administrator's rules. A tap leaves them with its end.
func TestGroups(t *testing.T) {
	h := newHost(t)
	nft := testenv.Tool(t, "nft")
	list := func(set string) string {
		out, _ := exec.Command(nft, "list", "set", "inet", "vmd", set).CombinedOutput()
		return string(out)
	}
	_, files := h.mustOpen(vmop.TapRequest{Groups: []string{"dmz"}})
	_, others := h.mustOpen(vmop.TapRequest{})
	if got := list("tap"); !strings.Contains(got, `"tap0"`) || !strings.Contains(got, `"tap1"`) {
		t.Errorf("group tap: %s", got)
	}
	if got := list("dmz"); !strings.Contains(got, `"tap0"`) || strings.Contains(got, `"tap1"`) {
		t.Errorf("group dmz: %s", got)
	}
	for _, f := range append(files, others...) {
		f.Close()
	}
	for end := time.Now().Add(20 * time.Second); strings.Contains(list("tap")+list("dmz"), "elements"); {
		if time.Now().After(end) {
			t.Fatalf("left behind:\n%s%s", list("tap"), list("dmz"))
		}
		var res vmop.LinkResult // each answer is a turn of its loop
		h.ask(vmop.LinkQuery, vmop.LinkRequest{Name: "lo"}, vmop.LinkFound, &res)
	}
}

// Two taps on a bridge talk, each with its VM's address.
func TestTapsOnABridgeTalk(t *testing.T) {
	h := newHost(t)
	addBridge(t, "br0", 1500)
	setUp(t, "br0")
	var taps []*tap.Tap
	for i := range 2 {
		r := vmop.TapRequest{VM: uint32(i), Bridge: "br0", MAC: [6]byte{0xfe, 0xe1, 0xbb, 0xd1, 0, byte(i)}, Locked: true}
		res, files := h.mustOpen(r)
		r.Name = res.Name
		if res := h.setup(r); res.Code != vmop.OK {
			t.Fatal(res.Detail)
		}
		fd, err := unix.Dup(int(files[0].Fd()))
		if err != nil {
			t.Fatal(err)
		}
		d, err := tap.New(fd)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		taps = append(taps, d)
	}
	for i := range 2 {
		from, to := byte(i), byte(1-i)
		b := append(make([]byte, 12), 0xfe, 0xe1, 0xbb, 0xd1, 0, to, 0xfe, 0xe1, 0xbb, 0xd1, 0, from, 0x88, 0xb5)
		b = append(b, "hello"...)
		if err := taps[from].WriteFrame([][]byte{b}); err != nil {
			t.Fatal(err)
		}
		limit := time.AfterFunc(20*time.Second, taps[to].Wake)
		defer limit.Stop()
		for got := make([]byte, 2000); ; {
			n, err := taps[to].ReadFrame([][]byte{got}, true)
			if err != nil || n == 0 {
				t.Fatalf("nothing came from %d: %v", from, err)
			}
			if string(got[:n]) == string(b) {
				break
			}
		}
	}
}
