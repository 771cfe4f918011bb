package sev

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"runtime"
)

// VM is what a launch needs of a VM of KVM's: *kvm.VM has it.
type VM interface {
	// EncryptOp issues KVM_MEMORY_ENCRYPT_OP: command id with its struct data,
	// nil for none, which it may write to. firmware is the firmware's answer if
	// that is the error.
	EncryptOp(id uint32, data []byte, sevFD int) (firmware uint32, err error)
	// RegisterEncrypted issues KVM_MEMORY_ENCRYPT_REG_REGION: b holds encrypted
	// memory, and is held in place until the VM is closed.
	RegisterEncrypted(b []byte) error
	// Address is where b lies in this process.
	Address(b []byte) uint64
}

// Config says what a guest is to be.
type Config struct {
	Kind   Kind   // SEV or ES
	Policy Policy // DefaultPolicy(Kind) is the usual one
	FD     int    // of /dev/sev; it must be open until Finish has returned

	// Init2 says that the VM was made of the type that SEV has since Linux 6.10,
	// and that KVM_SEV_INIT2 is how it starts.
	Init2 bool

	// Cert and Session are the owner's: a Diffie-Hellman certificate of theirs
	// and the keys wrapped for this platform. Without them the firmware makes up
	// keys, and nobody can verify its measurement.
	Cert, Session []byte
}

// step is how far a launch is.
type step uint8

const (
	begun step = iota
	started
	registersDone
	finished
	failed
)

func (s step) String() string {
	return [...]string{"not been started", "been started", "its registers encrypted", "been finished", "failed"}[s]
}

// maxUpdate is how much one LAUNCH_UPDATE_DATA encrypts. KVM holds it in place
// a second time meanwhile, and counts it.
const maxUpdate = 16 << 20

// maxBlob bounds a certificate or session (ccp, SEV_FW_BLOB_MAX_SIZE).
const maxBlob = 16 << 10

// LockedMemory is how much memory a process must be allowed to hold in place
// for a guest with so many bytes.
func LockedMemory(guest uint64) uint64 { return guest + 2*maxUpdate }

// Guest is a guest that is being launched. Its methods are called in the order
// that the package comment shows. Whichever fails, the launch is over: what KVM
// and the firmware hold of it goes with the VM, which must be closed.
type Guest struct {
	vm     VM
	cfg    Config
	step   step
	digest hash.Hash
}

// Begin makes the VM a guest's with encryption. It comes before the first vCPU
// and memory slot.
func Begin(vm VM, c Config) (*Guest, error) {
	if err := c.Policy.Check(c.Kind); err != nil {
		return nil, err
	}
	if len(c.Cert) > maxBlob || len(c.Session) > maxBlob || (len(c.Cert) == 0) != (len(c.Session) == 0) {
		return nil, fmt.Errorf("SEV session: a certificate of %d bytes and a session of %d: both or none, at most %d",
			len(c.Cert), len(c.Session), maxBlob)
	}
	g := &Guest{vm: vm, cfg: c, digest: sha256.New()}
	var err error
	switch {
	case c.Init2:
		err = g.command("INIT2", KVM_SEV_INIT2, &sevInit{})
	case c.Kind == ES:
		err = g.command("ES_INIT", KVM_SEV_ES_INIT, nil)
	default:
		err = g.command("INIT", KVM_SEV_INIT, nil)
	}
	if err != nil {
		return nil, err
	}
	return g, nil
}

// Kind is what the guest is.
func (g *Guest) Kind() Kind { return g.cfg.Kind }

// RegisterMemory names all of the guest's RAM, a region at a time. KVM holds it
// in place: it is not swapped, nor given out only when it is touched.
func (g *Guest) RegisterMemory(b []byte) error {
	if err := g.in("register memory", begun); err != nil {
		return err
	}
	if err := g.vm.RegisterEncrypted(b); err != nil {
		return g.fail(&Error{Command: "REG_REGION", Err: err})
	}
	return nil
}

// Start has the firmware make the guest's keys.
func (g *Guest) Start() error {
	if err := g.in("start", begun); err != nil {
		return err
	}
	c := &launchStart{Policy: uint32(g.cfg.Policy)}
	var pin runtime.Pinner // the kernel reads them by their addresses
	defer pin.Unpin()
	for _, b := range []struct {
		blob []byte
		addr *uint64
		size *uint32
	}{{g.cfg.Cert, &c.DHUaddr, &c.DHLen}, {g.cfg.Session, &c.SessionUaddr, &c.SessionLen}} {
		if len(b.blob) > 0 {
			pin.Pin(&b.blob[0])
			*b.addr, *b.size = g.vm.Address(b.blob), uint32(len(b.blob))
		}
	}
	if err := g.command("LAUNCH_START", KVM_SEV_LAUNCH_START, c); err != nil {
		return err
	}
	g.step = started
	return nil
}

// Encrypt encrypts b, a part of the registered memory, in place, and adds it to
// the digest. Its length must be a multiple of 16; pages must not come twice.
func (g *Guest) Encrypt(b []byte) error {
	if err := g.in("encrypt memory", started); err != nil {
		return err
	}
	if len(b) == 0 || len(b)%16 != 0 {
		return g.fail(fmt.Errorf("SEV LAUNCH_UPDATE_DATA of %d bytes: not a multiple of 16", len(b)))
	}
	for len(b) > 0 {
		part := b[:min(len(b), maxUpdate)]
		b = b[len(part):]
		g.digest.Write(part) // it is ciphertext afterwards
		c := &launchUpdateData{Uaddr: g.vm.Address(part), Len: uint32(len(part))}
		if err := g.command("LAUNCH_UPDATE_DATA", KVM_SEV_LAUNCH_UPDATE_DATA, c); err != nil {
			return err
		}
	}
	return nil
}

// EncryptRegisters does the same with all vCPUs' registers: from now on neither
// KVM nor we can read or write them. It is for SEV-ES, and a must there.
func (g *Guest) EncryptRegisters() error {
	if err := g.in("encrypt registers", started); err != nil {
		return err
	}
	if g.cfg.Kind != ES {
		return g.fail(errors.New("SEV LAUNCH_UPDATE_VMSA: the guest has no SEV-ES"))
	}
	if err := g.command("LAUNCH_UPDATE_VMSA", KVM_SEV_LAUNCH_UPDATE_VMSA, nil); err != nil {
		return err
	}
	g.step = registersDone
	return nil
}

// Finish takes the firmware's measurement and ends the launch: the guest may
// run, and nothing can be added to it. Then it asks whether the firmware thinks
// so too.
func (g *Guest) Finish() (Launch, error) {
	want := started
	if g.cfg.Kind == ES {
		want = registersDone
	}
	if err := g.in("finish", want); err != nil {
		return Launch{}, err
	}
	l := Launch{Kind: g.cfg.Kind, Policy: g.cfg.Policy, Digest: [32]byte(g.digest.Sum(nil))}
	var err error
	if l.Measurement, err = g.measure(); err != nil {
		return Launch{}, err
	}
	if err := g.command("LAUNCH_FINISH", KVM_SEV_LAUNCH_FINISH, nil); err != nil {
		return Launch{}, err
	}
	var s guestStatus
	if err := g.command("GUEST_STATUS", KVM_SEV_GUEST_STATUS, &s); err != nil {
		return Launch{}, err
	}
	if s.State != stateRunning || Policy(s.Policy) != g.cfg.Policy {
		return Launch{}, g.fail(fmt.Errorf("SEV GUEST_STATUS: state %d with policy %v, want %d with %v",
			s.State, Policy(s.Policy), stateRunning, g.cfg.Policy))
	}
	g.step = finished
	return l, nil
}

// measure asks the firmware for its measurement.
func (g *Guest) measure() (m Measurement, err error) {
	buf := make([]byte, measurementSize)
	var pin runtime.Pinner // the kernel writes to it by its address
	pin.Pin(&buf[0])
	defer pin.Unpin()
	c := &launchMeasure{Uaddr: g.vm.Address(buf), Len: measurementSize}
	if err := g.command("LAUNCH_MEASURE", KVM_SEV_LAUNCH_MEASURE, c); err != nil {
		return m, err
	}
	if c.Len != measurementSize {
		return m, g.fail(fmt.Errorf("SEV LAUNCH_MEASURE: %d bytes came, not %d", c.Len, measurementSize))
	}
	copy(m.HMAC[:], buf)
	copy(m.Nonce[:], buf[len(m.HMAC):])
	return m, nil
}

// in checks that the launch has come to step want.
func (g *Guest) in(what string, want step) error {
	if g.step != want {
		return g.fail(fmt.Errorf("SEV: %s: the launch has %v", what, g.step))
	}
	return nil
}

func (g *Guest) fail(err error) error {
	if g.step != finished {
		g.step = failed
	}
	return err
}

// command issues a command with its struct c, nil for none, and takes the struct
// back.
func (g *Guest) command(name string, id uint32, c any) error {
	var b []byte
	if c != nil {
		var err error
		if b, err = binary.Append(nil, binary.NativeEndian, c); err != nil {
			return g.fail(fmt.Errorf("SEV %s: %w", name, err))
		}
	}
	if answer, err := g.vm.EncryptOp(id, b, g.cfg.FD); err != nil {
		return g.fail(&Error{Command: name, Firmware: FirmwareError(answer), Err: err})
	}
	if c == nil {
		return nil
	}
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, c); err != nil {
		return g.fail(fmt.Errorf("SEV %s: %w", name, err))
	}
	return nil
}
