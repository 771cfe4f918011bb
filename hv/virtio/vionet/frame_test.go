package vionet

import (
	"encoding/binary"
	"errors"
	"testing"

	"vmd/hv/virtio"
)

const all = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6

// head is a virtio_net_hdr.
func head(flags, gso byte, hdrLen, gsoSize, start, offset uint16) []byte {
	b := []byte{flags, gso}
	for _, v := range []uint16{hdrLen, gsoSize, start, offset, 0xffff} {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func TestHeaders(t *testing.T) {
	for _, c := range []struct {
		name     string
		head     []byte
		features uint64
		want     error
		clean    []byte // what the link gets; nil: head with num_buffers 0
	}{
		{"plain", head(0, 0, 0, 0, 0, 0), 0, nil, nil},
		{"stale lengths", head(0, 0, 99, 99, 0, 0), 0, nil, head(0, 0, 0, 0, 0, 0)},
		{"unknown flags", head(0xfe, 0, 0, 0, 0, 0), 0, nil, head(0, 0, 0, 0, 0, 0)},
		{"checksum", head(1, 0, 0, 0, 34, 16), all, nil, nil},
		{"checksum, not negotiated", head(1, 0, 0, 0, 34, 16), 0, errHeader, nil},
		{"checksum at the end", head(1, 0, 0, 0, 82, 16), all, nil, nil},
		{"checksum over the end", head(1, 0, 0, 0, 83, 16), all, errHeader, nil},
		{"checksum far out", head(1, 0, 0, 0, 0xffff, 0xffff), all, errHeader, nil},
		{"TSO", head(1, 1, 54, 1448, 34, 16), all, nil, nil},
		{"TSO6", head(1, 4, 74, 1428, 54, 16), all, nil, nil},
		{"TSO, not negotiated", head(1, 1, 54, 1448, 34, 16), VIRTIO_NET_F_CSUM, errHeader, nil},
		{"TSO without checksum", head(0, 1, 54, 1448, 34, 16), all, errHeader, nil},
		{"TSO of nothing", head(1, 1, 54, 0, 34, 16), all, errHeader, nil},
		{"TSO header too long", head(1, 1, 101, 1448, 34, 16), all, errHeader, nil},
		{"ECN, not offered", head(1, 0x81, 54, 1448, 34, 16), all, errHeader, nil},
		{"UFO, not offered", head(1, 3, 54, 1448, 34, 16), all, errHeader, nil},
	} {
		chain := virtio.Chain{Readable: [][]byte{append(append([]byte{}, c.head...), make([]byte, 100)...)}}
		var f Frame
		if err := f.parse(&chain, &rules{features: c.features}); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
			continue
		}
		if c.want != nil {
			continue
		}
		if c.clean == nil {
			c.clean = append([]byte{}, c.head...)
		}
		c.clean[10], c.clean[11] = 0, 0
		if got := f.Head[:HeaderLen]; string(got) != string(c.clean) {
			t.Errorf("%s: header %x, want %x", c.name, got, c.clean)
		}
	}
}

// FuzzNetFrame parses whatever a guest may send, cut wherever, and checks what
// the kernel would be given.
func FuzzNetFrame(f *testing.F) {
	f.Add(append(head(0, 0, 0, 0, 0, 0), make([]byte, 60)...), []byte{12}, uint64(0))
	f.Add(append(head(1, 1, 54, 1448, 34, 16), make([]byte, 3000)...), []byte{1, 2, 200, 3}, all)
	f.Add(append(head(1, 0, 0, 0, 34, 16), make([]byte, 60)...), []byte{0, 0, 0}, all)
	f.Fuzz(func(t *testing.T, in, cuts []byte, features uint64) {
		var segs [][]byte
		rest := in
		for _, c := range cuts {
			if n := min(int(c)+1, len(rest)); n > 0 {
				segs, rest = append(segs, rest[:n]), rest[n:]
			}
		}
		if len(rest) > 0 {
			segs = append(segs, rest)
		}
		var fr Frame
		chain := virtio.Chain{Readable: segs}
		if fr.parse(&chain, &rules{features: features, locked: true}) != nil {
			return
		}
		n := 0
		for _, b := range fr.Bufs {
			n += len(b)
		}
		h := header(fr.Head[:])
		switch {
		case n != len(in) || uint64(n) != fr.Len || len(fr.Bufs) > MaxSegments:
			t.Errorf("frame of %d bytes in %d pieces became %d", len(in), len(fr.Bufs), n)
		case [6]byte(fr.Head[HeaderLen+6:]) != [6]byte{}:
			t.Error("wrong source address")
		case h.flags()&^1 != 0 || h.gso() != 0 && h.flags() == 0:
			t.Errorf("header %x", fr.Head)
		case h.flags() != 0 && int(h.csumStart())+int(h.csumOffset())+2 > n-HeaderLen:
			t.Errorf("checksum outside the frame: %x", fr.Head)
		}
	})
}
