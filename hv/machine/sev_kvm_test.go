package machine

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/sev"
	"vmd/hv/state"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/viornd"
	"vmd/internal/testenv"
)

// playFD is the number of the /dev/sev that is played.
const playFD = 99

var playCPU = sev.CPU{Features: 1<<1 | 1<<3, Layout: 5<<6 | 47}

// playKVM stands in for KVM's part in a launch. It encrypts nothing, so that the
// guest can run where there is no SEV, and keeps what it is told to encrypt.
type playKVM struct {
	t          *testing.T
	calls      []string
	fail       string // a command that fails
	registered [][]byte
	known      [][]byte
	data       []byte // all that was to be encrypted
	regs       func() kvm.Regs
	entry      kvm.Regs // when registers were to be encrypted
	policy     uint32
}

func (p *playKVM) Address(b []byte) uint64 {
	p.known = append(p.known, b)
	return uint64(len(p.known)) << 32
}

func (p *playKVM) call(name string) error {
	p.calls = append(p.calls, name)
	if p.fail == name {
		return unix.EIO
	}
	return nil
}

func (p *playKVM) RegisterEncrypted(b []byte) error {
	p.registered = append(p.registered, b)
	return p.call("REG_REGION")
}

func (p *playKVM) EncryptOp(id uint32, data []byte, fd int) (uint32, error) {
	name := map[uint32]string{
		sev.KVM_SEV_INIT: "INIT", sev.KVM_SEV_ES_INIT: "INIT", sev.KVM_SEV_INIT2: "INIT",
		sev.KVM_SEV_LAUNCH_START: "START", sev.KVM_SEV_LAUNCH_UPDATE_DATA: "DATA", sev.KVM_SEV_LAUNCH_UPDATE_VMSA: "VMSA",
		sev.KVM_SEV_LAUNCH_MEASURE: "MEASURE", sev.KVM_SEV_LAUNCH_FINISH: "FINISH", sev.KVM_SEV_GUEST_STATUS: "STATUS",
	}[id]
	if name == "" || fd != playFD {
		p.t.Errorf("command %d on descriptor %d", id, fd)
	}
	if err := p.call(name); err != nil {
		return 0x07, err
	}
	le := binary.LittleEndian
	switch name {
	case "START":
		p.policy = le.Uint32(data[4:])
	case "DATA":
		b := p.known[le.Uint64(data)>>32-1]
		p.data = append(p.data, b...)
	case "VMSA":
		p.entry = p.regs()
	case "STATUS":
		le.PutUint32(data[4:], p.policy)
		le.PutUint32(data[8:], 3)
	}
	return 0, nil
}

// encrypted makes a machine whose memory is as good as encrypted.
func encrypted(t *testing.T, k sev.Kind, change func(*Config)) (*Machine, *tty, *playKVM) {
	t.Helper()
	p := &playKVM{t: t}
	m, out := newMachine(t, func(c *Config) {
		c.SEV = SEV{Kind: k, FD: playFD, play: &sevPlay{cpu: playCPU, vm: p}}
		if change != nil {
			change(c)
		}
	})
	p.regs = func() kvm.Regs {
		r, err := m.vcpus[0].kvm.Regs()
		if err != nil {
			t.Error(err)
		}
		return r
	}
	return m, out, p
}

// A guest is launched in the firmware's order, with exactly what was loaded, and
// runs from there.
func TestEncryptedLaunch(t *testing.T) {
	for k, want := range map[sev.Kind]string{
		sev.SEV: "INIT REG_REGION START DATA MEASURE FINISH STATUS",
		sev.ES:  "INIT REG_REGION START DATA VMSA MEASURE FINISH STATUS",
	} {
		t.Run(k.String(), func(t *testing.T) {
			m, out, p := encrypted(t, k, nil)
			if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
				t.Fatal(err)
			}
			k := elf64(cat(out32(0x3f8, '.'), off32, halt), true)
			if err := m.Load(Boot{Kernel: k, Cmdline: "secret", Initrd: blob([]byte("initrd"))}); err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(slices.Compact(p.calls), " "); got != want {
				t.Errorf("commands %s, want %s", got, want)
			}
			if len(p.registered) != 1 || &p.registered[0][0] != &m.mem.Regions()[0].Bytes[0] || len(p.registered[0]) != 4<<20 {
				t.Error("registered other memory than the guest's")
			}
			checkEncrypted(t, m, p)
			if m.cfg.SEV.Kind == sev.ES && p.entry.RIP != kernelAt {
				t.Errorf("registers encrypted with RIP %#x, want %#x", p.entry.RIP, kernelAt)
			}
			start(t, m)
			end(t, m, PowerOff)
			if got := out.String(); got != "." {
				t.Errorf("guest printed %q", got)
			}
		})
	}
}

// checkEncrypted holds what was encrypted against the guest's memory.
func checkEncrypted(t *testing.T, m *Machine, p *playKVM) {
	t.Helper()
	var inOrder []byte
	seen := map[mem.GPA]bool{}
	for _, r := range m.encryption.loaded {
		b, err := m.mem.Slice(r.Base, r.Size)
		if err != nil {
			t.Fatal(err)
		}
		inOrder = append(inOrder, b...)
		for at := r.Base; at < r.Base+mem.GPA(r.Size); at += mem.Page {
			if seen[at] || at%mem.Page != 0 {
				t.Errorf("page %#x is encrypted twice, or in part", at)
			}
			seen[at] = true
		}
	}
	if !bytes.Equal(p.data, inOrder) {
		t.Errorf("%d bytes were encrypted, not the %d that were loaded", len(p.data), len(inOrder))
	}
	if first := m.encryption.loaded[0]; first != (mem.Range{Base: 0xe0000, Size: 0x20000}) {
		t.Errorf("the tables are not first, %+v is", first)
	}
	all := m.mem.Regions()[0].Bytes
	for at := 0; at < len(all); at += mem.Page {
		if page := all[at : at+mem.Page]; !seen[mem.GPA(at)] && !bytes.Equal(page, make([]byte, mem.Page)) {
			t.Errorf("page %#x holds something and is not encrypted", at)
		}
	}
	l, ok := m.Launch()
	if want := sha256.Sum256(inOrder); !ok || l.Digest != want || l.Kind != m.cfg.SEV.Kind || uint32(l.Policy) != p.policy {
		t.Errorf("launch %+v, %v; want digest %x", l, ok, want)
	}
}

// Two starts of one guest have one digest: its owner can reckon it.
func TestDigestIsTheSameAgain(t *testing.T) {
	var digests [2][32]byte
	for i := range digests {
		m, _, _ := encrypted(t, sev.SEV, nil)
		if err := m.Load(Boot{Kernel: elf64(halt, false), Cmdline: "x"}); err != nil {
			t.Fatal(err)
		}
		l, _ := m.Launch()
		digests[i] = l.Digest
	}
	if digests[0] != digests[1] || digests[0] == [32]byte{} {
		t.Errorf("digests %x", digests)
	}
}

// Where any command fails the guest does not start, not even in plain.
func TestFailedLaunch(t *testing.T) {
	for _, fail := range []string{"START", "DATA", "VMSA", "MEASURE", "FINISH", "STATUS"} {
		m, _, p := encrypted(t, sev.ES, nil)
		p.fail = fail
		err := m.Load(Boot{Kernel: elf64(halt, true)})
		var se *SEVError
		if !errors.As(err, &se) || !strings.Contains(err.Error(), "launch the SEV-ES guest") ||
			!strings.Contains(err.Error(), "POLICY_FAILURE (0x7); this platform does not meet the guest's policy") {
			t.Errorf("%s: error %v", fail, err)
		}
		if _, ok := m.Launch(); ok {
			t.Errorf("%s: there is a launch", fail)
		}
		if err := m.Start(); !errors.As(err, &se) {
			t.Errorf("%s: start: %v", fail, err)
		}
		if last := p.calls[len(p.calls)-1]; last != fail {
			t.Errorf("%s: %s came after it", fail, last)
		}
	}
}

// newSEV is what New says of a configuration. It must fail.
func newSEV(t *testing.T, s SEV, cpus int) error {
	t.Helper()
	testenv.KVM(t)
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	before := descriptors(t)
	m, err := New(Config{KVM: fd, Memory: 4 << 20, CPUs: cpus, SEV: s})
	if err == nil {
		m.Close()
	} else if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, %d were before: %v", after, before, err)
	}
	return err
}

// What cannot be encrypted, or not be what it is to be when it is, says so.
func TestEncryptionRefuses(t *testing.T) {
	play := func(p *playKVM, cpu sev.CPU) *sevPlay { p.t = t; return &sevPlay{cpu: cpu, vm: p} }
	with := func(k sev.Kind, f func(*Machine) error) func() error {
		return func() error {
			m, _, _ := encrypted(t, k, nil)
			return f(m)
		}
	}
	for _, tt := range []struct {
		name string
		do   func() error
		want string
	}{
		{"no SEV", func() error { return newSEV(t, SEV{Kind: sev.SEV, play: play(&playKVM{}, sev.CPU{})}, 1) }, "KVM has no SEV: "},
		{"no SEV-ES", func() error {
			return newSEV(t, SEV{Kind: sev.ES, play: play(&playKVM{}, sev.CPU{Features: 2, Layout: 47})}, 1)
		}, "KVM has no SEV-ES: "},
		{"a C-bit inside RAM", func() error {
			return newSEV(t, SEV{Kind: sev.SEV, play: play(&playKVM{}, sev.CPU{Features: 2, Layout: 30})}, 1)
		}, "C-bit"},
		{"INIT fails", func() error {
			return newSEV(t, SEV{Kind: sev.SEV, FD: playFD, play: play(&playKVM{fail: "INIT"}, playCPU)}, 1)
		}, "INIT"},
		{"memory is not to be had", func() error {
			return newSEV(t, SEV{Kind: sev.SEV, FD: playFD, play: play(&playKVM{fail: "REG_REGION"}, playCPU)}, 1)
		}, "SEV REG_REGION"},
		{"another kind", func() error { return newSEV(t, SEV{Kind: 7}, 1) }, "kind 7"},
		{"SEV-ES with two CPUs", func() error { return newSEV(t, SEV{Kind: sev.ES, play: play(&playKVM{}, playCPU)}, 2) }, "1 vCPU"},
		{"firmware", with(sev.SEV, func(m *Machine) error { return m.Load(Boot{Firmware: blob(make([]byte, 64<<10))}) }), "needs a kernel"},
		{"no kernel", with(sev.SEV, (*Machine).Start), "none has been loaded"},
		{"a balloon", with(sev.SEV, func(m *Machine) error { return m.AddVirtio(pci.SlotBalloon, "viomb0", viomb.New(m.Memory(), nil)) }), "add viomb0: "},
		{"virtio 0.9", with(sev.SEV, func(m *Machine) error { return m.AddLegacy(pci.SlotRNG, "viornd0", viornd.New(), pci.ID{}) }), "virtio 0.9"},
		{"both virtios", with(sev.ES, func(m *Machine) error { return m.AddTransitional(pci.SlotRNG, "viornd0", viornd.New()) }), "virtio 0.9"},
		{"to be sent", with(sev.SEV, func(m *Machine) error {
			_, err := m.Send(t.Context(), nil, SendOptions{})
			return err
		}), "stays where it is"},
		{"to be received", with(sev.SEV, func(m *Machine) error { return m.ReceiveMemory((*state.Reader)(nil)) }), "stays where it is"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.do()
			var se *SEVError
			if !errors.As(err, &se) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// Two vCPUs are no trouble without SEV-ES.
func TestEncryptedCPUs(t *testing.T) {
	m, _, _ := encrypted(t, sev.SEV, func(c *Config) { c.CPUs = 2 })
	if err := m.Load(Boot{Kernel: elf64(halt, false)}); err != nil {
		t.Error(err)
	}
}

// Each device tells the guest that it does not reach what is encrypted, and no
// device of a plain guest does.
func TestDevicesOfAnEncryptedGuest(t *testing.T) {
	for _, k := range []sev.Kind{sev.None, sev.SEV, sev.ES} {
		var m *Machine
		if k == sev.None {
			m, _ = newMachine(t, nil)
		} else {
			m, _, _ = encrypted(t, k, nil)
		}
		if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
			t.Fatal(err)
		}
		if err := m.pci.Assign(); err != nil {
			t.Fatal(err)
		}
		config := func(reg uint32) uint32 {
			var b [4]byte
			m.ports.Write(0xcf8, word(1<<31|pci.SlotRNG<<11|reg))
			m.ports.Read(0xcfc, b[:])
			return binary.LittleEndian.Uint32(b[:])
		}
		bar := uint64(config(0x20)&^0xf) | uint64(config(0x24))<<32
		var high [4]byte
		m.mmio.Write(bar, word(1)) // device_feature_select (virtio 1.3, 4.1.4.3)
		m.mmio.Read(bar+4, high[:])
		if got, want := high[0]>>1&1 != 0, k != sev.None; high[0]&1 == 0 || got != want {
			t.Errorf("%v: bits 32 up of the features are %x; ACCESS_PLATFORM offered %v", k, high, got)
		}
		if m.board.fwcfg != nil {
			t.Errorf("%v: fw_cfg is there", k)
		}
	}
}

// What is noted twice is loaded once, and the order is that of the first time.
func TestLoadedPages(t *testing.T) {
	type r = mem.Range
	for _, tt := range []struct{ in, want []r }{
		{[]r{{Base: 0x500, Size: 56}}, []r{{Base: 0, Size: 0x1000}}},
		{[]r{{Base: 0xfff, Size: 2}}, []r{{Base: 0, Size: 0x2000}}},
		{[]r{{Base: 0x3000, Size: 1}, {Base: 0x1000, Size: 0x4001}}, []r{{Base: 0x3000, Size: 0x1000}, {Base: 0x1000, Size: 0x2000}, {Base: 0x4000, Size: 0x2000}}},
		{[]r{{Base: 0x1000, Size: 0x3000}, {Base: 0x2000, Size: 5}, {Base: 0x1000, Size: 0x3000}}, []r{{Base: 0x1000, Size: 0x3000}}},
		{[]r{{Base: 0x1000, Size: 1}, {Base: 0x3000, Size: 1}, {Base: 0x5000, Size: 1}, {Base: 0, Size: 0x7000}}, []r{
			{Base: 0x1000, Size: 0x1000}, {Base: 0x3000, Size: 0x1000}, {Base: 0x5000, Size: 0x1000},
			{Base: 0, Size: 0x1000}, {Base: 0x2000, Size: 0x1000}, {Base: 0x4000, Size: 0x1000}, {Base: 0x6000, Size: 0x1000}}},
		{[]r{{Base: 0x1000, Size: 0}}, nil},
	} {
		e := encryption{guest: new(sev.Guest)}
		for _, r := range tt.in {
			e.note(r.Base, r.Size)
		}
		if !slices.Equal(e.loaded, tt.want) {
			t.Errorf("%v: loaded %v, want %v", tt.in, e.loaded, tt.want)
		}
		var plain encryption
		plain.note(0, 4096)
		if plain.loaded != nil {
			t.Error("a plain guest's memory is noted")
		}
	}
}

func TestEncryptedAddresses(t *testing.T) {
	for _, tt := range []struct{ cbit, reduction, bits, want int }{
		{47, 5, 48, 43}, {51, 0, 43, 43}, {51, 1, 52, 51}, {47, 0, 48, 47},
	} {
		e := encryption{guest: new(sev.Guest), cpu: sev.CPU{Features: 2, Layout: uint32(tt.reduction<<6 | tt.cbit)}}
		if got := e.physBits(tt.bits); got != tt.want || e.cBit() != 1<<tt.cbit {
			t.Errorf("%+v: %d bits, C-bit %#x", tt, got, e.cBit())
		}
	}
	var plain encryption
	if plain.physBits(48) != 48 || plain.cBit() != 0 {
		t.Error("a plain guest has a C-bit")
	}
}

func TestCPUIDOfEncryptedGuests(t *testing.T) {
	host := kvm.CPUIDEntry{Function: leafSEV, EAX: ones, EBX: 0xfff<<12 | 1<<6 | 51, ECX: 509, EDX: 100}
	for k, want := range map[sev.Kind][2]uint32{sev.None: {}, sev.SEV: {2, 1<<6 | 51}, sev.ES: {10, 1<<6 | 51}} {
		e := leaf(t, host, cpuTopology{count: 1, sev: k})
		if got := [4]uint32{e.EAX, e.EBX, e.ECX, e.EDX}; got != [4]uint32{want[0], want[1]} {
			t.Errorf("%v: %s, want %#x", k, fmt.Sprintf("%#x", got), want)
		}
	}
}
