package sev

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeFD is the number of the fake's /dev/sev.
const fakeFD = 77

var fakeTIK = []byte("0123456789abcdef")

// fault makes a command fail the nth time it comes.
type fault struct {
	command  string
	nth      int
	err      error
	firmware FirmwareError
}

// fakeKVM plays KVM and the firmware behind it: it knows which command may come
// when, reads each struct by its offsets in the kernel's headers, keeps the
// launch digest by itself and encrypts what it is given.
type fakeKVM struct {
	t      *testing.T
	calls  []string
	counts map[string]int
	fault  fault
	after  int // commands that came after the fault

	kind       Kind // INIT* that was issued
	state      uint32
	policy     uint32
	status     func(s []byte) // changes what GUEST_STATUS says
	measureLen uint32
	ld         hash.Hash
	vmsas      int
	registered [][]byte
	known      [][]byte // slices whose address was asked for
	encrypted  [][]byte
	blobs      []string
}

func newFake(t *testing.T) *fakeKVM {
	return &fakeKVM{t: t, counts: map[string]int{}, ld: sha256.New(), measureLen: measurementSize}
}

// Address gives each slice an address of its own, far from any other.
func (f *fakeKVM) Address(b []byte) uint64 {
	f.known = append(f.known, b)
	return uint64(len(f.known)) << 32
}

func (f *fakeKVM) at(addr uint64, n uint32) []byte {
	i := int(addr>>32) - 1
	if i < 0 || i >= len(f.known) || addr&0xffffffff != 0 || int(n) > len(f.known[i]) {
		f.t.Fatalf("address %#x with %d bytes is none that was asked for", addr, n)
	}
	return f.known[i][:n]
}

// note records a call and says whether it is to fail.
func (f *fakeKVM) note(name string) (uint32, error) {
	if f.counts[f.fault.command] >= f.fault.nth && f.fault.nth > 0 {
		f.after++
	}
	f.calls = append(f.calls, name)
	f.counts[name]++
	if f.fault.command == name && f.counts[name] == f.fault.nth {
		return uint32(f.fault.firmware), f.fault.err
	}
	return 0, nil
}

func (f *fakeKVM) RegisterEncrypted(b []byte) error {
	if _, err := f.note("REG_REGION"); err != nil {
		return err
	}
	if f.kind == None {
		return unix.ENOTTY
	}
	f.registered = append(f.registered, b)
	return nil
}

const fakeRefused = 0x2 // INVALID_GUEST_STATE

func (f *fakeKVM) EncryptOp(id uint32, data []byte, fd int) (uint32, error) {
	names := map[uint32]string{
		0: "INIT", 1: "ES_INIT", 2: "LAUNCH_START", 3: "LAUNCH_UPDATE_DATA", 4: "LAUNCH_UPDATE_VMSA",
		6: "LAUNCH_MEASURE", 7: "LAUNCH_FINISH", 16: "GUEST_STATUS", 22: "INIT2",
	}
	name, ok := names[id]
	if !ok || fd != fakeFD {
		f.t.Fatalf("command %d on descriptor %d", id, fd)
	}
	if fw, err := f.note(name); err != nil {
		return fw, err
	}
	sizes := map[uint32]int{0: 0, 1: 0, 2: 40, 3: 16, 4: 0, 6: 16, 7: 0, 16: 12, 22: 48}
	if len(data) != sizes[id] {
		f.t.Fatalf("%s with %d bytes, the kernel's struct has %d", name, len(data), sizes[id])
	}
	return f.carryOut(id, data)
}

func (f *fakeKVM) carryOut(id uint32, data []byte) (uint32, error) {
	le := binary.LittleEndian
	expect := func(state uint32) bool { return f.kind != None && f.state == state }
	switch id {
	case 0, 1, 22:
		if f.kind != None || bytes.ContainsFunc(data, func(r rune) bool { return r != 0 }) {
			return 0, unix.EINVAL
		}
		f.kind = SEV
	case 2:
		if !expect(0) {
			return fakeRefused, unix.EIO
		}
		f.policy, f.state = le.Uint32(data[4:]), 1
		for _, off := range []int{8, 24} {
			if n := le.Uint32(data[off+8:]); n > 0 {
				f.blobs = append(f.blobs, string(f.at(le.Uint64(data[off:]), n)))
			}
		}
		le.PutUint32(data, 1) // the handle
	case 3:
		if !expect(1) {
			return fakeRefused, unix.EIO
		}
		b := f.at(le.Uint64(data), le.Uint32(data[8:]))
		f.ld.Write(b)
		for i := range b {
			b[i] ^= 0x5a
		}
		f.encrypted = append(f.encrypted, b)
	case 4:
		if !expect(1) {
			return fakeRefused, unix.EIO
		}
		f.vmsas++
	case 6:
		if !expect(1) {
			return fakeRefused, unix.EIO
		}
		f.measure(data)
	case 7:
		if !expect(2) {
			return fakeRefused, unix.EIO
		}
		f.state = 3
	case 16:
		le.PutUint32(data, 1)
		le.PutUint32(data[4:], f.policy)
		le.PutUint32(data[8:], f.state)
		if f.status != nil {
			f.status(data)
		}
	}
	return 0, nil
}

func (f *fakeKVM) measure(data []byte) {
	le := binary.LittleEndian
	out := f.at(le.Uint64(data), le.Uint32(data[8:]))
	nonce := [16]byte{1, 2, 3}
	m := Measure(fakeTIK, API{1, 49}, 3, Policy(f.policy), [32]byte(f.ld.Sum(nil)), nonce)
	copy(out, slices.Concat(m.HMAC[:], nonce[:]))
	le.PutUint32(data[8:], f.measureLen)
	f.state = 2
}

// trace is the calls, with repeats counted.
func (f *fakeKVM) trace() string {
	var out []string
	for i, c := range f.calls {
		if i == 0 || f.calls[i-1] != c {
			out = append(out, c)
		}
	}
	return strings.Join(out, " ")
}
