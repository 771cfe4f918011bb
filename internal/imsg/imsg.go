// Package imsg carries framed messages, with descriptors, over Unix sockets of
// type SOCK_SEQPACKET: one message per packet. It knows no message types.
//
// A packet is a header of 12 bytes and a payload in CBOR (RFC 8949):
//
//	0       1       2               4                               12
//	+-------+-------+---------------+-------------------------------+----
//	|version| flags |     type      |          request id           | payload
//	+-------+-------+---------------+-------------------------------+----
//
// Numbers are little-endian. The version is 1 and the flags are zero; anything
// else is an error. Descriptors travel beside the packet as SCM_RIGHTS.
package imsg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

const (
	version    = 1
	headerSize = 12

	// MaxPayload is the largest payload in bytes.
	MaxPayload = 64 << 10
	// MaxFiles is the most descriptors that one message can carry.
	MaxFiles = 64
)

// ErrFormat says that a peer sent what is not a message.
var ErrFormat = errors.New("malformed message")

// Msg is one message. ID is the request it belongs to: the answer to a request
// bears the request's ID. Files are the descriptors that came with it; whoever
// receives a Msg either takes them over or calls Close.
type Msg struct {
	Type    uint16
	ID      uint64
	Payload []byte
	Files   []*os.File

	back func() // of Lend
}

// Close closes every descriptor that is still in m.Files.
func (m *Msg) Close() {
	for _, f := range m.Files {
		if f != nil {
			f.Close()
		}
	}
	m.Files = nil
}

// Discard is Close for descriptors of strangers: it does not wait.
func (m *Msg) Discard() {
	Discard(m.Files...)
	m.Files = nil
}

// Discard closes files, nil among them, and does not wait for it: to close a
// descriptor can take as long as whoever serves its file system likes (FUSE), or
// whoever is at the other end of it (SO_LINGER, socket(7)).
func Discard(files ...*os.File) {
	if len(files) == 0 {
		return
	}
	go func() {
		for _, f := range files {
			if f != nil {
				f.Close()
			}
		}
	}()
}

// TakeFile hands descriptor i over to the caller: Close leaves it alone from
// now on. It returns nil when there is no such descriptor.
func (m *Msg) TakeFile(i int) *os.File {
	if i < 0 || i >= len(m.Files) {
		return nil
	}
	f := m.Files[i]
	m.Files[i] = nil
	return f
}

// TakeFiles hands all descriptors over to the caller, in order; nil stands for
// one that was taken before.
func (m *Msg) TakeFiles() []*os.File {
	files := make([]*os.File, len(m.Files))
	for i := range files {
		files[i] = m.TakeFile(i)
	}
	return files
}

// appendPacket appends m as a packet to b.
func appendPacket(b []byte, m *Msg) ([]byte, error) {
	if len(m.Payload) > MaxPayload {
		return nil, fmt.Errorf("message type %d: payload of %d bytes, at most %d fit", m.Type, len(m.Payload), MaxPayload)
	}
	if len(m.Files) > MaxFiles {
		return nil, fmt.Errorf("message type %d: %d descriptors, at most %d fit", m.Type, len(m.Files), MaxFiles)
	}
	b = append(b, version, 0)
	b = binary.LittleEndian.AppendUint16(b, m.Type)
	b = binary.LittleEndian.AppendUint64(b, m.ID)
	return append(b, m.Payload...), nil
}

// parsePacket splits packet b. The payload is a part of b.
func parsePacket(b []byte) (Msg, error) {
	if len(b) < headerSize {
		return Msg{}, fmt.Errorf("%w: %d bytes, a header has %d", ErrFormat, len(b), headerSize)
	}
	if b[0] != version {
		return Msg{}, fmt.Errorf("%w: protocol version %d, this side speaks %d", ErrFormat, b[0], version)
	}
	if b[1] != 0 {
		return Msg{}, fmt.Errorf("%w: unknown flags %#x", ErrFormat, b[1])
	}
	return Msg{
		Type:    binary.LittleEndian.Uint16(b[2:]),
		ID:      binary.LittleEndian.Uint64(b[4:]),
		Payload: b[headerSize:],
	}, nil
}
