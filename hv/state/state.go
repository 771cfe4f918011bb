// Package state is the form in which a machine's state travels: a stream of
// sections, each with its length and checksum, some of which hold the guest's
// pages and the rest Go structs in CBOR. It knows the form and no part of a
// machine: each part says with its own struct what its state is.
//
// A stream comes from whoever can write to a pipe, so a Reader trusts no byte
// of it: it holds one section at a time, of MaxSection bytes at most, and gives
// out only what the checksum covers.
//
//	stream   magic[8] version:u32 section...
//	section  tag:u16 flags:u16 length:u32 crc32c:u32 payload[length]
//
// Numbers are little endian. The checksum is of the first eight bytes of the
// section and its payload.
package state

import (
	"errors"
	"hash/crc32"
)

// Version is the version of the framing and of Pages payloads. What machines of
// different making say to each other has a number of its own
// (hv/machine.Version).
const Version = 1

// MaxSection is the longest payload.
const MaxSection = 1 << 20

const magic = "vmdstate"

const (
	streamHeader  = len(magic) + 4
	sectionHeader = 12
)

// mandatory marks a section that a reader must understand (flags, bit 0). A
// section without it is passed over by a reader that does not know its tag.
const mandatory = 1

// Tag says what a section holds. The numbers never change, and one that is no
// longer used is not used again.
type Tag uint16

// The sections, in the order in which they come but for the last two: Abort may
// come at any point, Console comes before End.
const (
	Definition Tag = 1  // what the machine is made of: whoever runs machines knows
	Machine    Tag = 2  // what the receiving host must offer, and the memory map
	Pages      Tag = 3  // guest memory, any number of times
	Round      Tag = 4  // all pages of a round have been sent
	Paused     Tag = 5  // the guest stands still; what follows is what has changed last
	Memory     Tag = 6  // no more pages
	Device     Tag = 7  // one for each part of the board and each device
	Chip       Tag = 8  // KVM's interrupt controllers, timer and clock
	VCPU       Tag = 9  // one for each vCPU
	MachineEnd Tag = 10 // the machine's state is complete
	Disk       Tag = 11 // an image that travels with the machine, if one does
	End        Tag = 12 // all is said; the sender waits for an answer
	Go         Tag = 13 // the receiver runs the machine from here on
	Abort      Tag = 14 // the sender has changed its mind, with a reason in words
	Console    Tag = 15 // what the guest last wrote to its console
)

// Optional is the first of the tags that a reader need not know.
const Optional Tag = 0x8000

// known says whether this version knows t.
func (t Tag) known() bool { return t >= Definition && t <= Console }

//go:generate go tool stringer -type=Tag

// The errors that callers tell apart. A stream that ends between two sections
// ends with io.EOF, one that is cut with io.ErrUnexpectedEOF.
var (
	ErrFormat  = errors.New("not a machine's state")
	ErrVersion = errors.New("a machine's state in another version")
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
