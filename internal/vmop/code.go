package vmop

//go:generate go tool stringer -type=Code -linecomment

// Code is the outcome of a request: a number for programs and a name for
// scripts. Neither ever changes. The zero value is success.
type Code uint16

// The codes. The comment behind each is its name.
const (
	OK               Code = 0  // ok
	ErrPermission    Code = 1  // permission
	ErrNotFound      Code = 2  // not-found
	ErrRunning       Code = 3  // running
	ErrNotRunning    Code = 4  // not-running
	ErrStopping      Code = 5  // stopping
	ErrInvalid       Code = 6  // invalid
	ErrNoFirmware    Code = 7  // no-firmware
	ErrKernel        Code = 8  // kernel
	ErrDisk          Code = 9  // disk
	ErrDiskLocked    Code = 10 // disk-locked
	ErrCDROM         Code = 11 // cdrom
	ErrTemplate      Code = 12 // template
	ErrInstance      Code = 13 // instance
	ErrNameTaken     Code = 14 // name-taken
	ErrShared        Code = 15 // shared
	ErrMemory        Code = 16 // memory
	ErrHypervisor    Code = 17 // hypervisor
	ErrNetwork       Code = 18 // network
	ErrTooOften      Code = 19 // too-often
	ErrConfig        Code = 20 // config
	ErrTimeout       Code = 21 // timeout
	ErrUnsupported   Code = 22 // unsupported
	ErrCrashed       Code = 23 // crashed
	ErrUnavailable   Code = 24 // unavailable
	ErrBusy          Code = 25 // busy
	ErrNothingToBoot Code = 26 // nothing-to-boot
	ErrInternal      Code = 27 // internal
	ErrSEV           Code = 28 // sev
	ErrSend          Code = 29 // send
	ErrStream        Code = 30 // stream
	ErrNoBootROM     Code = 31 // no-boot-rom
)
