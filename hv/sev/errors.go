package sev

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// FirmwareError is the firmware's answer to a command that it did not carry out
// (SEV API 55766, 5.1.3; linux/psp-sev.h, sev_ret_code).
type FirmwareError uint32

// Answers that mean something to us.
const (
	firmwareSuccess         FirmwareError = 0
	SEV_RET_INVALID_LEN     FirmwareError = 0x04
	SEV_RET_POLICY_FAILURE  FirmwareError = 0x07
	SEV_RET_RESOURCE_LIMIT  FirmwareError = 0x17
	SEV_RET_NO_FW_CALL      FirmwareError = 0xffffffff
	lastOfFirmwareNamesList               = 0x1b
)

var firmwareNames = [lastOfFirmwareNamesList + 1]string{
	0x00: "SUCCESS", 0x01: "INVALID_PLATFORM_STATE", 0x02: "INVALID_GUEST_STATE", 0x03: "INVALID_CONFIG",
	0x04: "INVALID_LEN", 0x05: "ALREADY_OWNED", 0x06: "INVALID_CERTIFICATE", 0x07: "POLICY_FAILURE",
	0x08: "INACTIVE", 0x09: "INVALID_ADDRESS", 0x0a: "BAD_SIGNATURE", 0x0b: "BAD_MEASUREMENT",
	0x0c: "ASID_OWNED", 0x0d: "INVALID_ASID", 0x0e: "WBINVD_REQUIRED", 0x0f: "DFFLUSH_REQUIRED",
	0x10: "INVALID_GUEST", 0x11: "INVALID_COMMAND", 0x12: "ACTIVE", 0x13: "HWSEV_RET_PLATFORM",
	0x14: "HWSEV_RET_UNSAFE", 0x15: "UNSUPPORTED", 0x16: "INVALID_PARAM", 0x17: "RESOURCE_LIMIT",
	0x18: "SECURE_DATA_INVALID", 0x19: "INVALID_PAGE_SIZE", 0x1a: "INVALID_PAGE_STATE", 0x1b: "INVALID_MDATA_ENTRY",
}

func (e FirmwareError) Error() string {
	switch {
	case e <= lastOfFirmwareNamesList:
		return fmt.Sprintf("firmware says %s (%#x)", firmwareNames[e], uint32(e))
	case e == SEV_RET_NO_FW_CALL:
		return "firmware was not asked"
	}
	return fmt.Sprintf("firmware says %#x", uint32(e))
}

// Advice on answers of the firmware, where there is any.
var firmwareAdvice = map[FirmwareError]string{
	0x01: "the platform is in another state than it should be: look at the kernel log of ccp, reload kvm_amd",
	0x03: "the platform was set up without SEV-ES: reload ccp and kvm_amd, or use sev",
	0x06: "the owner's certificate is not one of this platform's",
	0x07: "this platform does not meet the guest's policy: update its firmware, or use sev",
	0x0d: "the host's BIOS gives SEV or SEV-ES guests no ASIDs: see its SEV-ES ASID space limit",
	0x0f: "start it again",
	0x13: "the secure processor had a fault of hardware: start it again, or reset the host",
	0x14: "the secure processor had a fault of hardware: start it again, or reset the host",
	0x15: "this firmware is too old for it: update it",
	0x17: "the secure processor has no room for another guest: stop one that is encrypted",
}

// Error is a command that failed. Unwrap gives the kernel's error, and the
// firmware's if it was asked.
type Error struct {
	Command  string // "LAUNCH_START"
	Firmware FirmwareError
	Err      error
}

func (e *Error) Error() string {
	s := fmt.Sprintf("SEV %s: %v", e.Command, e.Err)
	if e.asked() {
		s += ", " + e.Firmware.Error()
	}
	if a := e.advice(); a != "" {
		s += "; " + a
	}
	return s
}

// Unwrap is for errors.Is and errors.As.
func (e *Error) Unwrap() []error {
	if e.asked() {
		return []error{e.Err, e.Firmware}
	}
	return []error{e.Err}
}

func (e *Error) asked() bool {
	return e.Firmware != firmwareSuccess && e.Firmware != SEV_RET_NO_FW_CALL
}

// Advice on errors of the kernel. What makes it give them differs from command
// to command (arch/x86/kvm/svm/sev.c).
var kernelAdvice = []struct {
	command string
	err     error
	advice  string
}{
	{"INIT", unix.EBUSY, "all of the host's ASIDs are in use: stop another encrypted guest"},
	{"INIT", unix.ENOTTY, noKVM},
	{"INIT", unix.EINVAL, noKVM},
	{"INIT", unix.ENODEV, "the secure processor did not start: look at the kernel log of ccp"},
	{"REG_REGION", unix.ENOMEM, locked},
	{"LAUNCH_UPDATE_DATA", unix.ENOMEM, locked},
	{"LAUNCH_START", unix.EBADF, "the descriptor is not that of /dev/sev"},
}

const (
	noKVM  = "load kvm_amd with sev=1, and for SEV-ES with sev_es=1"
	locked = "all of a guest's memory is held in place: raise the limit on locked memory (RLIMIT_MEMLOCK) of vmd, or free memory"
)

func (e *Error) advice() string {
	if e.asked() {
		return firmwareAdvice[e.Firmware]
	}
	command := e.Command
	if command == "INIT2" || command == "ES_INIT" {
		command = "INIT"
	}
	for _, k := range kernelAdvice {
		if k.command == command && errors.Is(e.Err, k.err) {
			return k.advice
		}
	}
	return ""
}
