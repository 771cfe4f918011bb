package vswitch

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/internal/testenv"
	"vmd/net/tap"
)

// nftTool runs nft with args, and input if there is any.
func nftTool(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Tool(t, "nft"), args...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("nft %q: %v: %s", args, err, out)
	}
	return string(out)
}

// wantSet fails unless nft lists exactly names as the elements of a set.
func wantSet(t *testing.T, set string, names ...string) {
	t.Helper()
	out := nftTool(t, "", "list", "set", "inet", "vmd", set)
	var got []string
	for i, s := range strings.Split(out, `"`) {
		if i%2 == 1 {
			got = append(got, s)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, names) || !strings.Contains(out, "type ifname") {
		t.Errorf("set %s is %q, want %q:\n%s", set, got, names, out)
	}
}

func TestGroupsAreSets(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	check(t, c.PurgeGroups()) // without a table
	check(t, c.Left("tap9"))
	for range 2 {
		check(t, c.SetGroups("tap1", []string{"dmz", "tap"}))
	}
	check(t, c.SetGroups("tap2", []string{"tap"}))
	wantSet(t, "dmz", "tap1")
	wantSet(t, "tap", "tap1", "tap2")
	check(t, c.SetGroups("tap1", []string{"lan_2.x", "tap"}))
	wantSet(t, "dmz")
	wantSet(t, "lan_2.x", "tap1")
	check(t, c.Left("tap1"))
	wantSet(t, "lan_2.x")
	wantSet(t, "tap", "tap2")
}

// A ruleset that declares the table and its sets, before vmd or after, goes
// together with it; what is not a set of names stays untouched.
func TestGroupsInARuleset(t *testing.T) {
	const rules = `table inet vmd {
		set tap { type ifname; }
		set ports { type inet_service; elements = { 53, 67 } }
		set prefixes { type ifname; flags interval; auto-merge; elements = { "eth*" } }
		chain in { type filter hook input priority filter; iifname @tap udp dport @ports accept; }
	}`
	testenv.NetNS(t)
	c := open(t)
	nftTool(t, rules, "-f", "-")
	addTap(t, "tap1")
	check(t, c.SetGroups("tap1", []string{"tap"}))
	check(t, c.PurgeGroups())
	wantSet(t, "tap", "tap1")
	nftTool(t, "flush chain inet vmd in\n"+rules, "-f", "-")
	wantSet(t, "tap", "tap1")
	if out := nftTool(t, "", "list", "table", "inet", "vmd"); !strings.Contains(out, "53, 67") || !strings.Contains(out, `"eth*"`) {
		t.Errorf("the administrator's sets changed:\n%s", out)
	}
}

func TestGroupsArePurged(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	addBridge(t, "br0", false)
	addTap(t, "tap1")
	for _, name := range []string{"tap1", "tap7", "br0"} {
		check(t, c.SetGroups(name, []string{"dmz", "tap"}))
	}
	check(t, c.PurgeGroups())
	wantSet(t, "dmz", "tap1")
	wantSet(t, "tap", "tap1")
}

func TestGroupThatCannotBe(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	nftTool(t, "table inet vmd { set dmz { type ipv4_addr; }; }", "-f", "-")
	if err := c.SetGroups("tap1", []string{"dmz", "tap"}); err == nil || !strings.Contains(err.Error(), "tap1") {
		t.Errorf("a set of addresses took a name: %v", err)
	}
	check(t, c.SetGroups("tap1", []string{"tap"})) // the answers of the last time are gone
	wantSet(t, "tap", "tap1")
}

func TestTapThatLeaves(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	addBridge(t, "br0", false)
	gone := make(chan string, 10)
	ended := make(chan error)
	go func() {
		for {
			names, err := c.Gone()
			if err != nil {
				ended <- err
				return
			}
			for _, n := range names {
				gone <- n
			}
		}
	}()
	for _, name := range []string{"tap1", "tap2"} {
		_, files, err := tap.Create(tap.Options{Name: name})
		check(t, err)
		c.mustAttach(t, Port{Tap: name, Bridge: "br0"})
		check(t, c.SetGroups(name, []string{"tap"}))
		check(t, files[0].Close())
		if got := <-gone; got != name {
			t.Errorf("%q left, want %q", got, name)
		}
	}
	addTap(t, "tap2") // somebody was quicker
	check(t, c.Left("tap1"))
	check(t, c.Left("tap2"))
	wantSet(t, "tap", "tap2")
	c.Close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestAlternativeName(t *testing.T) {
	testenv.NetNS(t)
	c := open(t)
	addTap(t, "tap1")
	addTap(t, "tap2")
	for _, name := range []string{"tap1", "tap1", "tap2"} { // again, and taken
		c.mustAttach(t, Port{Tap: name, Alias: "vm17-if0-a-rather-long-name"})
	}
	if l := link(t, "vm17-if0-a-rather-long-name"); l.Attrs().Name != "tap1" {
		t.Errorf("it is a name of %s", l.Attrs().Name)
	}
	c.mustAttach(t, Port{Tap: "tap2", Alias: "no name/at:all"})
	if l := link(t, "tap2"); len(l.Attrs().AltNames) != 0 {
		t.Errorf("names %q", l.Attrs().AltNames)
	}
}

// FuzzNetlink reads whatever as an answer of the kernel's.
func FuzzNetlink(f *testing.F) {
	link := attrString(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, "tap1")
	link = attr(link, unix.IFLA_LINKINFO, attrString(nil, unix.IFLA_INFO_KIND, "tun"))
	n := nft{}
	b := n.append(nil, unix.RTM_DELLINK, 0, link[0], 0, link[4:])
	f.Add(b)
	f.Add(append(b, b...))
	f.Add(elemMsg(newSetElem, 0, "dmz", "tap1").attrs)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, name := range append(goneTaps(b), elementNames(b)...) {
			if strings.ContainsRune(name, 0) || len(name) > len(b) {
				t.Errorf("name %q", name)
			}
		}
		for m := range messages(b) {
			_ = m.errno()
		}
	})
}

func TestGoneTaps(t *testing.T) {
	n := nft{}
	notice := func(typ uint16, family byte, name, kind string) []byte {
		b := attrString(make([]byte, unix.SizeofIfInfomsg-nfHeader), unix.IFLA_IFNAME, name)
		return n.append(nil, typ, 0, family, 0, attr(b, unix.IFLA_LINKINFO, attrString(nil, unix.IFLA_INFO_KIND, kind)))
	}
	b := slices.Concat(
		notice(unix.RTM_DELLINK, unix.AF_UNSPEC, "tap1", "tun"),
		notice(unix.RTM_NEWLINK, unix.AF_UNSPEC, "tap2", "tun"),
		notice(unix.RTM_DELLINK, unix.AF_BRIDGE, "tap3", "tun"),
		notice(unix.RTM_DELLINK, unix.AF_UNSPEC, "v0", "veth"),
		notice(unix.RTM_DELLINK, unix.AF_UNSPEC, "tap4", "tun"),
		[]byte{1, 2, 3},
	)
	if got := goneTaps(b); !slices.Equal(got, []string{"tap1", "tap4"}) {
		t.Errorf("got %q", got)
	}
}

// The example in etc can be loaded, again, and around the sets as vmd makes them.
func TestExampleRuleset(t *testing.T) {
	const file = "../../etc/nftables/vmd.nft"
	testenv.NetNS(t)
	c := open(t)
	addTap(t, "tap1")
	nftTool(t, "", "-c", "-f", file)
	check(t, c.SetGroups("tap1", []string{"dmz", "tap"}))
	nftTool(t, "", "-f", file)
	once := nftTool(t, "", "list", "table", "inet", "vmd")
	nftTool(t, "", "-f", file)
	if again := nftTool(t, "", "list", "table", "inet", "vmd"); again != once {
		t.Errorf("loaded twice it is another:\n%s\nwas\n%s", again, once)
	}
	for _, want := range []string{"oifname != @tap masquerade", "udp dport 53 redirect", `"tap1"`} {
		if !strings.Contains(once, want) {
			t.Errorf("%q is not in\n%s", want, once)
		}
	}
	check(t, c.SetGroups("tap2", []string{"tap"}))
	wantSet(t, "tap", "tap1", "tap2")
}
