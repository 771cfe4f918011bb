package sev

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
)

// DevicePath is the secure processor's device.
const DevicePath = "/dev/sev"

// Firmware is the secure processor: Device, or one that a test plays.
type Firmware interface {
	// Command has the firmware carry out command cmd with its struct data,
	// which it may write to. answer is the firmware's if that is the error.
	Command(cmd uint32, data []byte) (answer FirmwareError, err error)
}

// SEV_PLATFORM_STATUS asks what the platform is like (linux/psp-sev.h).
const SEV_PLATFORM_STATUS = 1

// PlatformState is the state of the platform (SEV API 55766, 5.6.1).
type PlatformState uint8

// The states of a platform.
const (
	Uninitialized PlatformState = iota
	Initialized
	Working // it has guests
)

func (s PlatformState) String() string {
	switch s {
	case Uninitialized:
		return "not initialized"
	case Initialized:
		return "initialized"
	case Working:
		return "working"
	}
	return fmt.Sprintf("state %d", uint8(s))
}

// Status is what the firmware says of itself.
type Status struct {
	API    API
	Build  uint8
	State  PlatformState
	Owned  bool // by somebody else than the host
	ES     bool // initialized for SEV-ES
	Guests uint32
}

// platformStatus is struct sev_user_data_status, which is packed.
type platformStatus struct {
	Major, Minor, State uint8
	Flags               uint32
	Build               uint8
	Guests              uint32
}

// Flags of platformStatus (linux/psp-sev.h).
const (
	SEV_STATUS_FLAGS_OWNED     = 1 << 0
	SEV_STATUS_FLAGS_CONFIG_ES = 1 << 8
)

// ReadStatus asks fw how it is.
func ReadStatus(fw Firmware) (Status, error) {
	b := make([]byte, binary.Size(platformStatus{}))
	if answer, err := fw.Command(SEV_PLATFORM_STATUS, b); err != nil {
		return Status{}, &Error{Command: "PLATFORM_STATUS", Firmware: answer, Err: err}
	}
	var p platformStatus
	if err := binary.Read(bytes.NewReader(b), binary.NativeEndian, &p); err != nil {
		return Status{}, fmt.Errorf("SEV PLATFORM_STATUS: %w", err)
	}
	return Status{
		API: API{p.Major, p.Minor}, Build: p.Build, State: PlatformState(p.State), Guests: p.Guests,
		Owned: p.Flags&SEV_STATUS_FLAGS_OWNED != 0, ES: p.Flags&SEV_STATUS_FLAGS_CONFIG_ES != 0,
	}, nil
}

// Check says what keeps this platform from starting a guest of kind k with
// policy p. KVM initializes a platform that is not yet.
func (s Status) Check(k Kind, p Policy) error {
	switch {
	case s.State > Working:
		return fmt.Errorf("SEV firmware %v is in %v: reload ccp and kvm_amd", s.API, s.State)
	case s.API.less(p.MinAPI()):
		return fmt.Errorf("SEV firmware %v build %d is older than the guest's policy wants, %v: update it", s.API, s.Build, p.MinAPI())
	case k == ES && s.State != Uninitialized && !s.ES:
		return fmt.Errorf("SEV firmware %v was initialized without SEV-ES: load kvm_amd with sev_es=1, or use sev", s.API)
	}
	return p.Check(k)
}

// OpenDevice opens /dev/sev and asks whether it can start a guest of kind k.
func OpenDevice(k Kind) (*os.File, error) {
	f, err := os.OpenFile(DevicePath, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("this host has no %v, or it is switched off (BIOS, ccp, kvm_amd): %w", k, err)
	}
	s, err := ReadStatus(Device(f.Fd()))
	if err == nil {
		err = s.Check(k, DefaultPolicy(k))
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}
