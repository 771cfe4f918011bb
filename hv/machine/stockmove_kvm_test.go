package machine

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vmd/hv/disk"
	"vmd/hv/pci"
	"vmd/hv/state"
	"vmd/hv/virtio/vioblk"
	"vmd/hv/virtio/viomb"
	"vmd/hv/virtio/vionet"
	"vmd/hv/virtio/viornd"
	"vmd/hv/virtio/vmmci"
)

// traveller is a stock guest that moves from machine to machine.
type traveller struct {
	*stock
	cpus int
	img  disk.Image
}

// add gives m the devices that each of its machines has.
func (s *traveller) add(m *Machine) error {
	blk, err := vioblk.New(s.img, vioblk.Config{Serial: "moves"})
	if err != nil {
		return err
	}
	nic := vionet.New(vionet.Config{MAC: [6]byte{2, 0, 0, 0, 0, 1}}, &noLink{wake: make(chan struct{}, 1)})
	return errors.Join(
		m.AddVirtio(pci.SlotDisk, "vioblk0", blk),
		m.AddVirtio(pci.SlotNIC, "vionet0", nic),
		m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()),
		m.AddVirtio(pci.SlotBalloon, "viomb0", viomb.New(m.Memory(), nil)),
		m.AddLegacy(pci.SlotVMMCI, "vmmci0", vmmci.New(vmmci.Config{}), vmmci.ID),
	)
}

// move sends the guest through a pipe to a new machine, where it goes on. The
// console is the same.
func (s *traveller) move(t *testing.T) {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	defer to.Close()
	type result struct {
		stats SendStats
		err   error
	}
	old, sent := s.Machine, make(chan result, 1)
	go func() {
		var r result
		r.stats, r.err = old.Send(context.Background(), state.NewWriter(to), SendOptions{})
		sent <- r
	}()
	m, _ := newMachine(t, func(c *Config) {
		s.config(s.cpus)(c)
		c.Console = s.tty
	})
	r := state.NewReader(from)
	if err := m.ReceiveMemory(r); err != nil {
		t.Fatal(err)
	}
	sameMemory(t, old, m)
	if err := s.add(m); err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(r); err != nil {
		t.Fatal(err)
	}
	got := <-sent
	if got.err != nil {
		t.Fatal(got.err)
	}
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	s.Machine = m
	t.Logf("moved: %+v", got.stats)
}

// until waits until the guest has left the machine it is on so many times.
func (s *traveller) until(t *testing.T, exits uint64) {
	t.Helper()
	for limit := time.Now().Add(deadline); ; time.Sleep(time.Millisecond) {
		var n uint64
		for i := range s.exits {
			n += atomic.LoadUint64(&s.exits[i])
		}
		if n >= exits {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("the guest has printed %q", s)
		}
	}
}

// TestStockKernelMoves moves Linux while it boots, with its second processor
// still to be started, later, and then while it works.
func TestStockKernelMoves(t *testing.T) {
	s := &traveller{cpus: 2, img: smallDisk(t)}
	s.stock = newStockWith(t, s.cpus, s.add)
	initrd := image(t, "initrd")
	err := s.Load(Boot{Kernel: image(t, "vmlinux"), Initrd: &initrd, Cmdline: "console=ttyS0 name=it"})
	if err != nil {
		t.Fatal(err)
	}
	start(t, s.Machine)
	for _, exits := range []uint64{20, 600, 1500, 3000, 4500} {
		s.until(t, exits)
		s.move(t)
	}
	s.wait(t, "guest ready it")
	s.say("run dd if=/dev/urandom of=/a bs=64k count=100 2>/dev/null; sync; sha256sum </a >/sum; cut -d. -f1 /proc/uptime >/before; echo prepared")
	s.wait(t, "prepared")
	s.say("run while :; do cat /a >/b; sha256sum </b | cmp - /sum || echo BROKEN; echo . >>/rounds; done & echo working")
	s.wait(t, "working")
	s.say("run while :; do dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2>/dev/null || echo BROKEN; echo . >>/reads; done & echo reading")
	s.wait(t, "reading")
	for range 3 {
		s.move(t)
	}
	for _, c := range []struct{ line, want string }{
		{"run head -n1 /dev/vda", "first"},
		{"run cat /sys/block/vda/serial", "moves"},
		{"run ip link show eth0", "02:00:00:00:00:01"},
		{"run echo cpus: $(nproc)", "cpus: 2"},
		{"run dd if=/dev/hwrng bs=48 count=1 2>/dev/null | wc -c", "48"},
		{"run echo new | dd of=/dev/vda bs=512 seek=1 conv=fsync 2>/dev/null; dd if=/dev/vda bs=512 skip=1 count=1 iflag=direct 2>/dev/null | head -n1", "new"},
		{"run sha256sum </a | cmp - /sum && echo as it was", "as it was"},
		{"run cat /sys/devices/system/clocksource/clocksource0/current_clocksource", "kvm-clock"},
		{"run dmesg | grep -E 'soft lockup|rcu.*stall|skew|sync_source|backwards|I/O error|BUG:|Oops'; echo complaints: $?", "complaints: 1"}, // grep found none,
		{"run a=$(wc -l </rounds); while [ $(wc -l </rounds) = $a ]; do sleep 1; done; echo still working", "still working"},
		{"run a=$(wc -l </reads); while [ $(wc -l </reads) = $a ]; do sleep 1; done; echo still reading", "still reading"},
	} {
		s.say(c.line)
		s.wait(t, c.want)
	}
	if strings.Contains(s.String(), "BROKEN") {
		t.Errorf("guest printed %q", s)
	}
	s.say("poweroff")
	end(t, s.Machine, PowerOff)
}
