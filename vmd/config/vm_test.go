package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

// TestValidate checks definitions as a client can send them: no parser has
// looked at them.
func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		set  func(*VM)
		want string
	}{
		{"complete", func(*VM) {}, ""},
		{"only a kernel", func(v *VM) { v.Disks, v.Boot = nil, "/bsd" }, ""},
		{"only a CD", func(v *VM) { v.Disks, v.CDROM = nil, "/iso" }, ""},
		{"nothing to boot", func(v *VM) { v.Disks = nil }, ErrNothingToBoot.Error()},
		{"only the network", func(v *VM) { v.Disks, v.BootDevice, v.NICs = nil, BootNet, make([]NIC, 1) }, ""},
		{"the network without an interface", func(v *VM) { v.Disks, v.BootDevice = nil, BootNet }, ErrNothingToBoot.Error()},
		{"an interface and no boot device", func(v *VM) { v.Disks, v.NICs = nil, make([]NIC, 1) }, ErrNothingToBoot.Error()},
		{"no name", func(v *VM) { v.Name = "" }, "name of the vm is empty"},
		{"name is an id", func(v *VM) { v.Name = "12" }, "is a number"},
		{"name with a slash", func(v *VM) { v.Name = "a/../b" }, "other bytes"},
		{"no memory", func(v *VM) { v.MemoryBytes = 0 }, "at least 1M"},
		{"too little memory", func(v *VM) { v.MemoryBytes = MinMemory - 1 }, "at least 1M"},
		{"least memory", func(v *VM) { v.MemoryBytes = MinMemory }, ""},
		{"most memory", func(v *VM) { v.MemoryBytes = MaxMemory }, ""},
		{"too much memory", func(v *VM) { v.MemoryBytes = MaxMemory + 1<<20 }, "limit is 128G"},
		{"part of a MiB", func(v *VM) { v.MemoryBytes++ }, "whole number of MiB"},
		{"no CPU", func(v *VM) { v.CPUs = 0 }, "1 to 64"},
		{"negative CPUs", func(v *VM) { v.CPUs = -1 }, "1 to 64"},
		{"too many CPUs", func(v *VM) { v.CPUs = 65 }, "1 to 64"},
		{"five disks", func(v *VM) { v.Disks = []Disk{{Path: "/1"}, {Path: "/2"}, {Path: "/3"}, {Path: "/4"}, {Path: "/5"}} }, "too many disks"},
		{"disk twice", func(v *VM) { v.Disks = []Disk{{Path: "/1"}, {Path: "/1"}} }, "given twice"},
		{"disk without path", func(v *VM) { v.Disks = []Disk{{}} }, "path is empty"},
		{"disk with a NUL", func(v *VM) { v.Disks = []Disk{{Path: "/a\x00b"}} }, "NUL"},
		{"long boot path", func(v *VM) { v.Boot = strings.Repeat("b", MaxPath+1) }, "boot: path is longer"},
		{"five interfaces", func(v *VM) { v.NICs = make([]NIC, 5) }, "too many interfaces"},
		{"five wanted", func(v *VM) { v.MinNICs = 5 }, "too many interfaces"},
		{"strange tap", func(v *VM) { v.NICs = []NIC{{Tap: "eth0"}} }, "interface 0: \"eth0\""},
		{"tap twice", func(v *VM) { v.NICs = []NIC{{Tap: "tap1"}, {Tap: "tap1"}} }, "interface 1: tap1 is interface 0 already"},
		{"long switch", func(v *VM) { v.NICs = []NIC{{Switch: strings.Repeat("s", 64)}} }, "longer than 63"},
		{"bad group", func(v *VM) { v.NICs = []NIC{{Group: "g1"}} }, "ends in a digit"},
		{"bad rdomain", func(v *VM) { v.NICs = []NIC{{RDomain: RDomain{256, true}}} }, "0 to 255"},
		{"initrd without kernel", func(v *VM) { v.Initrd = "/i" }, "initrd needs boot"},
		{"arguments without kernel", func(v *VM) { v.Cmdline = "x" }, "cmdline needs boot"},
		{"arguments with newline", func(v *VM) { v.Boot, v.Cmdline = "/bsd", "x\ny" }, "control bytes"},
		{"os with escape", func(v *VM) { v.OS = "\x1b[2J" }, "plain UTF-8"},
	}
	for _, tt := range tests {
		v := VM{Name: "v", Disks: []Disk{{Path: "/d"}}}
		v.SetDefaults()
		tt.set(&v)
		err := v.Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// template is what the instances of TestInstantiate are made of.
func template() VM {
	return VM{
		Name: "t", MemoryBytes: 1 << 30, CPUs: 2, Boot: "/bsd", CDROM: "/iso",
		Disks: []Disk{{Path: "/d"}},
		NICs:  []NIC{{Switch: "s", Tap: "tap1", MAC: [6]byte{2, 0, 0, 0, 0, 1}}, {Local: true}},
		Owner: Owner{UID: 7, GID: 70, HasGID: true}, OwnerSet: true,
		Limits: Limits{CPUPercent: 50},
	}
}

// TestInstantiate has a row for each rule, for user 1000.
func TestInstantiate(t *testing.T) {
	joe := Owner{UID: 1000}
	inherited := []NIC{{Switch: "s"}, {Local: true}}
	tests := []struct {
		name  string
		in    VM
		allow Option // what 1000 may set
		want  error  // nil: ok for all; ErrNotAllowed: only without allow; else always
	}{
		{"nothing set", VM{}, 0, nil},
		{"own name as owner", VM{Owner: joe, OwnerSet: true}, 0, nil},
		{"parent's owner", VM{Owner: Owner{UID: 7, GID: 70, HasGID: true}, OwnerSet: true}, 0, nil},
		{"same values", VM{MemoryBytes: 1 << 30, CPUs: 2, NICs: inherited}, 0, nil},
		{"cpus", VM{CPUs: 1}, AllowCPUs, ErrNotAllowed},
		{"memory", VM{MemoryBytes: 1 << 20}, AllowMemory, ErrNotAllowed},
		{"disk", VM{Disks: []Disk{{Path: "/a"}}}, AllowDisk, ErrNotAllowed},
		{"fewer interfaces", VM{NICs: inherited[:1]}, AllowInterface, ErrNotAllowed},
		{"other switch", VM{NICs: []NIC{{Switch: "x"}, {Local: true}}}, AllowInterface, ErrNotAllowed},
		{"other lladdr", VM{NICs: []NIC{{Switch: "s", MAC: [6]byte{2, 0, 0, 0, 0, 9}}, {Local: true}}}, AllowInterface, ErrNotAllowed},
		{"more interfaces", VM{MinNICs: 3}, AllowInterface, ErrNotAllowed},
		{"kernel", VM{Boot: "/bsd.rd"}, AllowBoot, ErrNotAllowed},
		{"arguments", VM{Cmdline: "-s"}, AllowBoot, ErrNotAllowed},
		{"initrd", VM{Initrd: "/i"}, AllowBoot, ErrNotAllowed},
		{"CD", VM{CDROM: "/other"}, AllowCDROM, ErrNotAllowed},
		{"parent's disk", VM{Disks: []Disk{{Path: "/d"}}}, AllowDisk, ErrShared},
		{"parent's lladdr", VM{NICs: []NIC{{}, {MAC: [6]byte{2, 0, 0, 0, 0, 1}}}}, AllowInterface, ErrShared},
		{"parent's tap", VM{NICs: []NIC{{}, {Tap: "tap1"}}}, AllowInterface, ErrShared},
	}
	for _, tt := range tests {
		try := func(uid uint32, allow Option) error {
			parent := template()
			parent.Allow.Options = allow
			v := tt.in
			v.Name, v.NICs = "v", append([]NIC(nil), tt.in.NICs...)
			err := v.Instantiate(&parent, uid)
			if !reflect.DeepEqual(parent.NICs, template().NICs) {
				t.Errorf("%s: the parent's interfaces changed", tt.name)
			}
			return err
		}
		with := tt.want
		if with == ErrNotAllowed {
			with = nil
		}
		if err := try(1000, tt.allow); !errors.Is(err, with) {
			t.Errorf("%s, allowed: %v, want %v", tt.name, err, with)
		}
		if err := try(0, 0); !errors.Is(err, with) {
			t.Errorf("%s, by root: %v, want %v", tt.name, err, with)
		}
		if tt.want != ErrNotAllowed {
			continue
		}
		if err := try(1000, ^tt.allow); !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s, everything else allowed: %v, want %v", tt.name, err, ErrNotAllowed)
		}
	}
}

// TestInstantiateAlways has what no flag allows to others than root, or to
// nobody.
func TestInstantiateAlways(t *testing.T) {
	tests := []struct {
		name string
		in   VM
		root bool
	}{
		{"somebody else as owner", VM{Owner: Owner{UID: 8}, OwnerSet: true}, true},
		{"another group as owner", VM{Owner: Owner{UID: 1000, GID: 71, HasGID: true}, OwnerSet: true}, true},
		{"further instances", VM{Allow: Allow{Options: AllowDisk}}, false},
		{"instance owner", VM{Allow: Allow{HasOwner: true, Owner: Owner{UID: 1000}}}, false},
	}
	for _, tt := range tests {
		for uid, want := range map[uint32]bool{0: tt.root, 1000: false} {
			parent, v := template(), tt.in
			parent.Allow.Options = ^Option(0)
			if err := v.Instantiate(&parent, uid); (err == nil) != want || err != nil && !errors.Is(err, ErrNotAllowed) {
				t.Errorf("%s, uid %d: %v, want success %v", tt.name, uid, err, want)
			}
		}
	}
}

// TestInherit checks what an instance has in the end.
func TestInherit(t *testing.T) {
	parent := template()
	v := VM{Name: "v", MinNICs: 3, Owner: Owner{UID: 1000}, OwnerSet: true}
	parent.Allow = Allow{Options: AllowInstance | AllowInterface, Owner: Owner{UID: 1000}, HasOwner: true}
	if err := v.Instantiate(&parent, 1000); err != nil {
		t.Fatal(err)
	}
	want := VM{
		Name: "v", Parent: "t", MemoryBytes: 1 << 30, CPUs: 2, Boot: "/bsd", CDROM: "/iso", MinNICs: 3,
		NICs:  []NIC{{Switch: "s"}, {Local: true}, {}},
		Owner: Owner{UID: 1000, GID: 70, HasGID: true}, OwnerSet: true,
		Allow: parent.Allow, Limits: Limits{CPUPercent: 50},
	}
	if !reflect.DeepEqual(v, want) {
		t.Errorf("got  %+v\nwant %+v", v, want)
	}
	if err := v.Validate(); err != nil {
		t.Error(err)
	}

	// Without the flag, nobody but root makes instances of the instance.
	parent.Allow.Options = 0
	w := VM{Name: "w"}
	if err := w.Instantiate(&parent, 1000); err != nil || w.Allow != (Allow{}) || w.Owner != parent.Owner {
		t.Errorf("allow %+v owner %+v, %v; want none and the parent's", w.Allow, w.Owner, err)
	}
}

// TestAttach checks what an interface gets from its switch.
func TestAttach(t *testing.T) {
	sw := &Switch{Name: "s", Interface: "br0", Group: "sg", Locked: true, RDomain: RDomain{3, true}}
	tests := []struct {
		name string
		nic  NIC
		sw   *Switch
		want Port
	}{
		{"no switch", NIC{Group: "g", RDomain: RDomain{2, true}}, nil, Port{Groups: []string{"g"}, RDomain: RDomain{2, true}}},
		{"all from the switch", NIC{}, sw, Port{"br0", []string{"sg"}, true, RDomain{3, true}}},
		{"own values first", NIC{Group: "g", RDomain: RDomain{0, true}}, sw, Port{"br0", []string{"g", "sg"}, true, RDomain{0, true}}},
		{"same group once", NIC{Group: "sg"}, sw, Port{"br0", []string{"sg"}, true, RDomain{3, true}}},
		{"own lock", NIC{Locked: true}, &Switch{Interface: "br1"}, Port{"br1", nil, true, RDomain{}}},
	}
	for _, tt := range tests {
		if got := tt.nic.Attach(tt.sw); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestWords checks the words of the small types.
func TestWords(t *testing.T) {
	for _, d := range []BootDevice{BootAuto, BootDisk, BootCDROM, BootNet} {
		if got, ok := ParseBootDevice(d.String()); !ok || got != d {
			t.Errorf("ParseBootDevice(%q) = %v, %v", d, got, ok)
		}
	}
	if _, ok := ParseBootDevice("usb"); ok {
		t.Error("usb is a boot device")
	}
	if got := Format(9).String(); got != "unknown" {
		t.Errorf("Format(9) = %q", got)
	}
}
