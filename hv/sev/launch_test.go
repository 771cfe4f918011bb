package sev

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ram is a guest's memory, of which the first part is to be encrypted.
func ram() [][]byte {
	a, b := make([]byte, maxUpdate+16384), make([]byte, 4096)
	for i := range a {
		a[i] = byte(i >> 8)
	}
	return [][]byte{a, b}
}

// launch runs a whole launch. It stops at the first error.
func launch(f *fakeKVM, c Config, mem [][]byte) (Launch, error) {
	c.FD = fakeFD
	g, err := Begin(f, c)
	if err != nil {
		return Launch{}, err
	}
	for _, r := range mem {
		if err := g.RegisterMemory(r); err != nil {
			return Launch{}, err
		}
	}
	if err := g.Start(); err != nil {
		return Launch{}, err
	}
	for _, b := range [][]byte{mem[0][4096:8192], mem[0][8192:]} {
		if err := g.Encrypt(b); err != nil {
			return Launch{}, err
		}
	}
	if c.Kind == ES {
		if err := g.EncryptRegisters(); err != nil {
			return Launch{}, err
		}
	}
	return g.Finish()
}

func config(k Kind, init2 bool) Config {
	return Config{Kind: k, Policy: DefaultPolicy(k), Init2: init2}
}

const tail = "LAUNCH_MEASURE LAUNCH_FINISH GUEST_STATUS"

func TestLaunch(t *testing.T) {
	for _, tt := range []struct {
		name   string
		cfg    Config
		want   string
		policy uint32
	}{
		{"SEV", config(SEV, true), "INIT2 REG_REGION LAUNCH_START LAUNCH_UPDATE_DATA " + tail, 0x3b},
		{"SEV, older kernel", config(SEV, false), "INIT REG_REGION LAUNCH_START LAUNCH_UPDATE_DATA " + tail, 0x3b},
		{"SEV-ES", config(ES, true), "INIT2 REG_REGION LAUNCH_START LAUNCH_UPDATE_DATA LAUNCH_UPDATE_VMSA " + tail, 0x3f},
		{"SEV-ES, older kernel", config(ES, false), "ES_INIT REG_REGION LAUNCH_START LAUNCH_UPDATE_DATA LAUNCH_UPDATE_VMSA " + tail, 0x3f},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, mem := newFake(t), ram()
			plain := bytes.Clone(mem[0])
			l, err := launch(f, tt.cfg, mem)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.trace(); got != tt.want {
				t.Errorf("commands %s\nwant     %s", got, tt.want)
			}
			if f.policy != tt.policy {
				t.Errorf("policy %#x, want %#x", f.policy, tt.policy)
			}
			if want := sha256.Sum256(plain[4096:]); l.Digest != want {
				t.Errorf("digest %x, want that of what was plain, %x", l.Digest, want)
			}
			if !l.Measurement.Verify(fakeTIK, API{1, 49}, 3, l.Policy, l.Digest) {
				t.Error("the firmware's measurement is of something else")
			}
			if !bytes.Equal(mem[0][:4096], plain[:4096]) || bytes.Equal(mem[0][4096:8192], plain[4096:8192]) {
				t.Error("encrypted other memory than it was told")
			}
			if f.state != stateRunning || len(f.registered) != 2 {
				t.Errorf("state %d with %d regions", f.state, len(f.registered))
			}
		})
	}
}

// No update is longer than what KVM can hold in place beside the guest.
func TestUpdatesAreBounded(t *testing.T) {
	f := newFake(t)
	if _, err := launch(f, config(SEV, true), ram()); err != nil {
		t.Fatal(err)
	}
	for _, b := range f.encrypted {
		if len(b) > maxUpdate {
			t.Errorf("an update of %d bytes", len(b))
		}
	}
	if len(f.encrypted) != 3 {
		t.Errorf("%d updates, want 3", len(f.encrypted))
	}
}

func TestSessionReachesTheFirmware(t *testing.T) {
	f, c := newFake(t), config(SEV, true)
	c.Cert, c.Session = []byte("certificate"), []byte("session")
	if _, err := launch(f, c, ram()); err != nil {
		t.Fatal(err)
	}
	if len(f.blobs) != 2 || f.blobs[0] != "certificate" || f.blobs[1] != "session" {
		t.Errorf("the firmware got %q", f.blobs)
	}
}

// Each command fails once, in each way. Nothing is asked after it, the error
// names the command, what the firmware said and what to do, and no launch is
// reported.
func TestEachFailureEndsTheLaunch(t *testing.T) {
	for _, tt := range []struct {
		fault fault
		want  []string
	}{
		{fault{"INIT2", 1, unix.ENOTTY, 0}, []string{"SEV INIT2", "sev=1"}},
		{fault{"INIT2", 1, unix.EBUSY, 0}, []string{"SEV INIT2", "stop another"}},
		{fault{"INIT2", 1, unix.EIO, 0x01}, []string{"SEV INIT2", "INVALID_PLATFORM_STATE (0x1)", "kernel log"}},
		{fault{"REG_REGION", 1, unix.ENOMEM, 0}, []string{"SEV REG_REGION", "RLIMIT_MEMLOCK"}},
		{fault{"REG_REGION", 2, unix.ENOMEM, 0}, []string{"SEV REG_REGION", "RLIMIT_MEMLOCK"}},
		{fault{"LAUNCH_START", 1, unix.EIO, 0x07}, []string{"SEV LAUNCH_START", "POLICY_FAILURE (0x7)", "update its firmware"}},
		{fault{"LAUNCH_START", 1, unix.EIO, 0x17}, []string{"SEV LAUNCH_START", "RESOURCE_LIMIT (0x17)", "stop one"}},
		{fault{"LAUNCH_START", 1, unix.EBADF, 0xffffffff}, []string{"SEV LAUNCH_START", "/dev/sev"}},
		{fault{"LAUNCH_UPDATE_DATA", 1, unix.ENOMEM, 0}, []string{"SEV LAUNCH_UPDATE_DATA", "RLIMIT_MEMLOCK"}},
		{fault{"LAUNCH_UPDATE_DATA", 3, unix.EIO, 0x09}, []string{"SEV LAUNCH_UPDATE_DATA", "INVALID_ADDRESS (0x9)"}},
		{fault{"LAUNCH_UPDATE_VMSA", 1, unix.EIO, 0x15}, []string{"SEV LAUNCH_UPDATE_VMSA", "UNSUPPORTED (0x15)", "update it"}},
		{fault{"LAUNCH_MEASURE", 1, unix.EIO, 0x04}, []string{"SEV LAUNCH_MEASURE", "INVALID_LEN (0x4)"}},
		{fault{"LAUNCH_FINISH", 1, unix.EIO, 0x02}, []string{"SEV LAUNCH_FINISH", "INVALID_GUEST_STATE (0x2)"}},
		{fault{"GUEST_STATUS", 1, unix.EIO, 0x99}, []string{"SEV GUEST_STATUS", "firmware says 0x99"}},
	} {
		f := newFake(t)
		f.fault = tt.fault
		l, err := launch(f, config(ES, true), ram())
		var e *Error
		if !errors.As(err, &e) || !errors.Is(err, tt.fault.err) || l != (Launch{}) {
			t.Errorf("%+v: launch %+v, error %v", tt.fault, l, err)
			continue
		}
		for _, w := range tt.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%+v: error %q lacks %q", tt.fault, err, w)
			}
		}
		if tt.fault.firmware == 0xffffffff && strings.Contains(err.Error(), "firmware") {
			t.Errorf("%+v: error %q blames a firmware that was not asked", tt.fault, err)
		}
		if f.after != 0 {
			t.Errorf("%+v: %d commands came after the one that failed: %s", tt.fault, f.after, f.trace())
		}
	}
}

// A guest of which anything failed, or that is asked out of order, takes no
// other step.
func TestOrder(t *testing.T) {
	page := make([]byte, 4096)
	steps := map[string]func(*Guest) error{
		"register":  func(g *Guest) error { return g.RegisterMemory(page) },
		"start":     (*Guest).Start,
		"encrypt":   func(g *Guest) error { return g.Encrypt(page) },
		"registers": (*Guest).EncryptRegisters,
		"finish":    func(g *Guest) error { _, err := g.Finish(); return err },
	}
	for _, tt := range []struct {
		kind Kind
		good []string // these succeed
		bad  []string // each of these fails after them
	}{
		{SEV, nil, []string{"encrypt", "registers", "finish"}},
		{SEV, []string{"register", "start"}, []string{"register", "start", "registers"}},
		{ES, []string{"start", "encrypt"}, []string{"start", "finish"}},
		{ES, []string{"start", "encrypt", "registers"}, []string{"encrypt", "registers", "start"}},
		{SEV, []string{"start", "encrypt", "finish"}, []string{"register", "start", "encrypt", "registers", "finish"}},
	} {
		for _, bad := range tt.bad {
			f, c := newFake(t), config(tt.kind, true)
			c.FD = fakeFD
			g, err := Begin(f, c)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range tt.good {
				if err := steps[s](g); err != nil {
					t.Fatalf("%v %v: %s: %v", tt.kind, tt.good, s, err)
				}
			}
			n := len(f.calls)
			if err := steps[bad](g); err == nil {
				t.Errorf("%v: %s after %v is taken", tt.kind, bad, tt.good)
			}
			for name, s := range steps {
				if err := s(g); err == nil {
					t.Errorf("%v: %s is taken after %s failed", tt.kind, name, bad)
				}
			}
			if len(f.calls) != n {
				t.Errorf("%v: %s after %v reached KVM: %s", tt.kind, bad, tt.good, f.trace())
			}
		}
	}
}

// What KVM answers may not be what was asked for.
func TestAnswersAreChecked(t *testing.T) {
	for name, change := range map[string]func(*fakeKVM){
		"not running":            func(f *fakeKVM) { f.status = func(s []byte) { s[8] = 1 } },
		"another policy":         func(f *fakeKVM) { f.status = func(s []byte) { s[4] = 0 } },
		"a measurement too long": func(f *fakeKVM) { f.measureLen = 64 },
	} {
		f := newFake(t)
		change(f)
		if l, err := launch(f, config(SEV, true), ram()); err == nil || l != (Launch{}) {
			t.Errorf("%s: launch %+v, error %v", name, l, err)
		}
	}
}

func TestBeginRefuses(t *testing.T) {
	for name, c := range map[string]Config{
		"no kind":                 {Policy: DefaultPolicy(SEV)},
		"a policy of SEV-ES":      {Kind: SEV, Policy: DefaultPolicy(ES)},
		"a policy of SEV":         {Kind: ES, Policy: DefaultPolicy(SEV)},
		"a bit that is zero":      {Kind: SEV, Policy: DefaultPolicy(SEV) | 1<<6},
		"a session alone":         {Kind: SEV, Policy: DefaultPolicy(SEV), Session: []byte("x")},
		"a certificate alone":     {Kind: SEV, Policy: DefaultPolicy(SEV), Cert: []byte("x")},
		"a session that is large": {Kind: SEV, Policy: DefaultPolicy(SEV), Cert: []byte("x"), Session: make([]byte, maxBlob+1)},
	} {
		f := newFake(t)
		if _, err := Begin(f, c); err == nil || len(f.calls) != 0 {
			t.Errorf("%s: error %v, commands %v", name, err, f.calls)
		}
	}
}

func TestEncryptWantsWholeBlocks(t *testing.T) {
	for _, n := range []int{0, 1, 15, 17, 4095} {
		f, c := newFake(t), config(SEV, true)
		c.FD = fakeFD
		g, err := Begin(f, c)
		if err == nil {
			err = g.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Encrypt(make([]byte, n)); err == nil || len(f.encrypted) != 0 {
			t.Errorf("%d bytes: error %v", n, err)
		}
	}
}
