package machine

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vmd/hv/pci"
	"vmd/hv/state"
	"vmd/hv/virtio/viornd"
	"vmd/internal/testenv"
)

// piece is a section of a stream.
type piece struct {
	tag state.Tag
	b   []byte
}

func split(t testing.TB, stream []byte) []piece {
	t.Helper()
	var out []piece
	for r := state.NewReader(bytes.NewReader(stream)); ; {
		tag, b, err := r.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, piece{tag, bytes.Clone(b)})
	}
}

func join(t testing.TB, pieces []piece) []byte {
	t.Helper()
	var b bytes.Buffer
	w := state.NewWriter(&b)
	for _, p := range pieces {
		if err := w.Section(p.tag, p.b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// try receives b into a new machine and starts that, if it can.
func try(t testing.TB, b []byte) (err error) {
	t.Helper()
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	m, err := New(twoCPUs(Config{KVM: fd, Memory: 1 << 20}))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	r := state.NewReader(bytes.NewReader(b))
	if err := m.ReceiveMemory(r); err != nil {
		return errors.Join(err, refused(t, m, r))
	}
	if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
		t.Fatal(err)
	}
	if err := m.Restore(r); err != nil {
		return errors.Join(err, refused(t, m, r))
	}
	if err := m.Start(); err != nil {
		return err
	}
	if err := m.Pause(); err != nil && !errors.Is(err, ErrEnded) {
		t.Error(err)
	}
	return nil
}

// refused holds a machine that was received in part against being used.
func refused(t testing.TB, m *Machine, r *state.Reader) error {
	t.Helper()
	if m.ReceiveMemory(r) == nil || m.Restore(r) == nil || m.Start() == nil || m.Load(Boot{}) == nil {
		t.Error("half a machine can be used")
	}
	return nil
}

func twoCPUs(c Config) Config {
	c.CPUs, c.UUID = 2, [16]byte{9, 8, 7}
	return c
}

// small is the stream of a small machine with all that machines have.
func small(t *testing.T) []byte {
	t.Helper()
	m, out := newMachine(t, func(c *Config) {
		c.Memory = 1 << 20
		*c = twoCPUs(*c)
	})
	if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
		t.Fatal(err)
	}
	put(t, m, cat(outb(0x3f8, '!'), spin)...)
	start(t, m)
	out.wait(t, "!")
	return send(t, m)
}

func openFiles(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestReceiveRefusesACutStream(t *testing.T) {
	b := small(t)
	if err := try(t, b); err != nil {
		t.Fatal(err)
	}
	before := openFiles(t)
	// Each section is left out, and each is cut; the bytes of the framing are
	// cut one by one in package state.
	pieces := split(t, b)
	for i, p := range pieces {
		if p.tag == state.Pages || p.tag == state.Round {
			continue // their absence is for the sender's checksums
		}
		without := append(append([]piece(nil), pieces[:i]...), pieces[i+1:]...)
		if err := try(t, join(t, without)); err == nil {
			t.Errorf("section %d, %v, left out: taken", i, p.tag)
		}
		if err := try(t, join(t, pieces[:i])); err == nil {
			t.Errorf("end before section %d, %v: taken", i, p.tag)
		}
	}
	for range 20 {
		if err := try(t, b[:rand.IntN(len(b))]); err == nil {
			t.Error("a cut stream: taken")
		}
	}
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors open, %d before", n, before)
	}
}

// TestReceiveHostile changes a little in the content of sections, with a right
// checksum. Some of that is a machine too; the rest is an error, and nothing is
// left behind.
func TestReceiveHostile(t *testing.T) {
	pieces := split(t, small(t))
	before := openFiles(t)
	taken := 0
	const tries = 60
	for range tries {
		i := rand.IntN(len(pieces))
		old := pieces[i].b
		pieces[i].b = mutate(old)
		if try(t, join(t, pieces)) == nil {
			taken++
		}
		pieces[i].b = old
	}
	t.Logf("%d of %d were taken", taken, tries)
	if n := openFiles(t); n != before {
		t.Errorf("%d descriptors open, %d before", n, before)
	}
}

// mutate returns b with a few bits flipped, or cut, or with more behind.
func mutate(b []byte) []byte {
	b = bytes.Clone(b)
	switch n := rand.IntN(10); {
	case len(b) == 0 || n == 0:
		return append(b, byte(n))
	case n == 1:
		return b[:rand.IntN(len(b))]
	default:
		for range n {
			b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
		}
		return b
	}
}

// TestReceiveRefusesAnotherShape changes one thing that both must agree in.
func TestReceiveRefusesAnotherShape(t *testing.T) {
	pieces := split(t, small(t))
	for name, c := range map[string]struct {
		change func(*shape)
		want   string
	}{
		"version":          {func(s *shape) { s.Version++ }, "machine version 2 there and 1 here"},
		"memory":           {func(s *shape) { s.Memory *= 2 }, "2097152 bytes of memory there"},
		"vCPUs":            {func(s *shape) { s.CPUs = 3 }, "3 vCPUs there and 2 here"},
		"uuid":             {func(s *shape) { s.UUID[0]++ }, "the machine is 0a"},
		"firmware":         {func(s *shape) { s.ROM = 1 }, "1 bytes of firmware"},
		"a lot of it":      {func(s *shape) { s.ROM = 1 << 30 }, "1073741824 bytes of firmware"},
		"boot device":      {func(s *shape) { s.Device = 9 }, "boot device 9"},
		"address bits":     {func(s *shape) { s.PhysBits = 64 }, "64 address bits"},
		"CPUID":            {func(s *shape) { s.CPUID[1].ECX |= 1 << 5 }, "CPUID leaf 0x1"},
		"too much of it":   {func(s *shape) { s.CPUID = append(s.CPUID, make([]cpuidLeaf, 300)...) }, "entries"},
		"no rate":          {func(s *shape) { s.TSCKHz = 0 }, "ran at 0 kHz"},
		"rate below 0":     {func(s *shape) { s.TSCKHz = -1 << 40 }, "kHz"},
		"rate of nobody's": {func(s *shape) { s.TSCKHz = 1 << 40 }, "kHz"},
	} {
		var s shape
		if err := state.Decode(pieces[0].b, &s); err != nil {
			t.Fatal(err)
		}
		c.change(&s)
		b, err := state.Encode(s)
		if err != nil {
			t.Fatal(err)
		}
		err = try(t, join(t, append([]piece{{state.Machine, b}}, pieces[1:]...)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// TestReceiveUnequalTSC wants another rate where the host cannot scale: the
// emulating KVM cannot.
func TestReceiveUnequalTSC(t *testing.T) {
	pieces := split(t, small(t))
	var s shape
	if err := state.Decode(pieces[0].b, &s); err != nil {
		t.Fatal(err)
	}
	for ppm, ok := range map[int]bool{0: true, 200: true, -200: true, 100_000: testenv.RealKVM()} {
		changed := s
		changed.TSCKHz += s.TSCKHz / 1e6 * ppm
		b, err := state.Encode(changed)
		if err != nil {
			t.Fatal(err)
		}
		err = try(t, join(t, append([]piece{{state.Machine, b}}, pieces[1:]...)))
		if ppm < 1000 && err != nil || !ok && (err == nil || !strings.Contains(err.Error(), "cannot do otherwise")) {
			t.Errorf("%d millionths: %v", ppm, err)
		}
	}
}

// TestReceiveNeedsANewMachine uses the methods in the wrong order.
func TestReceiveNeedsANewMachine(t *testing.T) {
	b := small(t)
	reader := func() *state.Reader { return state.NewReader(bytes.NewReader(b)) }
	m, _ := newMachine(t, func(c *Config) {
		c.Memory = 1 << 20
		*c = twoCPUs(*c)
	})
	if err := m.Restore(reader()); err == nil {
		t.Error("restored without memory")
	}
	if err := m.AddVirtio(pci.SlotRNG, "viornd0", viornd.New()); err != nil {
		t.Fatal(err)
	}
	if err := m.ReceiveMemory(reader()); err == nil {
		t.Error("memory received after a device was added")
	}
	put(t, m, spin...)
	start(t, m)
	if err := m.ReceiveMemory(reader()); err == nil {
		t.Error("memory received by a running machine")
	}
	if err := m.Restore(reader()); err == nil {
		t.Error("state received by a running machine")
	}
}
