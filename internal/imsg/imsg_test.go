package imsg

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"testing"
)

func TestPacket(t *testing.T) {
	in := Msg{Type: 0x0102, ID: 0x030405060708090a, Payload: []byte{0xa0}}
	b, err := appendPacket(nil, &in)
	if err != nil {
		t.Fatal(err)
	}
	want := []byte{1, 0, 2, 1, 10, 9, 8, 7, 6, 5, 4, 3, 0xa0}
	if !bytes.Equal(b, want) {
		t.Errorf("packet % x, want % x", b, want)
	}
	out, err := parsePacket(b)
	if err != nil || out.Type != in.Type || out.ID != in.ID || !bytes.Equal(out.Payload, in.Payload) {
		t.Errorf("parsed %+v, %v; want %+v", out, err, in)
	}
}

func TestParsePacketRefuses(t *testing.T) {
	good := []byte{1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0}
	edit := func(i int, v byte) []byte {
		b := bytes.Clone(good)
		b[i] = v
		return b
	}
	for name, b := range map[string][]byte{
		"empty":          {},
		"half a header":  good[:11],
		"version 0":      edit(0, 0),
		"version 2":      edit(0, 2),
		"flags that are": edit(1, 1),
	} {
		if _, err := parsePacket(b); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: error %v, want ErrFormat", name, err)
		}
	}
	if m, err := parsePacket(good); err != nil || len(m.Payload) != 0 {
		t.Errorf("header alone: %+v, %v", m, err)
	}
}

func TestAppendPacketRefuses(t *testing.T) {
	if _, err := appendPacket(nil, &Msg{Payload: make([]byte, MaxPayload+1)}); err == nil {
		t.Error("payload of MaxPayload+1 taken")
	}
	if _, err := appendPacket(nil, &Msg{Files: make([]*os.File, MaxFiles+1)}); err == nil {
		t.Error("MaxFiles+1 descriptors taken")
	}
}

func TestTakeFile(t *testing.T) {
	a, b, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	m := Msg{Files: []*os.File{a, b}}
	for _, i := range []int{-1, 2} {
		if f := m.TakeFile(i); f != nil {
			t.Errorf("TakeFile(%d) = %v, want nil", i, f)
		}
	}
	got := m.TakeFile(1)
	if got != b || m.TakeFile(1) != nil {
		t.Error("descriptor 1 was not handed over exactly once")
	}
	m.Close()
	if err := a.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Close left descriptor 0 open: %v", err)
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close closed the descriptor that was taken: %v", err)
	}
}

type inner struct {
	Name string `cbor:"1,keyasint,omitempty"`
}

type outer struct {
	N     uint32   `cbor:"1,keyasint"`
	Inner *inner   `cbor:"2,keyasint,omitempty"`
	List  []uint32 `cbor:"3,keyasint,omitempty"`
}

// Each payload is not what Marshal would have written for outer.
func TestUnmarshalRefuses(t *testing.T) {
	nested := bytes.Repeat([]byte{0x81}, 20)
	huge := append([]byte{0xa1, 0x03, 0x9a}, binary.BigEndian.AppendUint32(nil, 1<<30)...)
	for name, b := range map[string][]byte{
		"nothing":           {},
		"half a map":        {0xa1, 0x01},
		"unknown key":       {0xa1, 0x09, 0x01},
		"key twice":         {0xa2, 0x01, 0x01, 0x01, 0x02},
		"bytes behind":      {0xa1, 0x01, 0x01, 0x00},
		"indefinite length": {0xbf, 0x01, 0x01, 0xff},
		"a tag":             {0xa1, 0x01, 0xc1, 0x01},
		"wrong type":        {0xa1, 0x01, 0x61, 'x'},
		"negative":          {0xa1, 0x01, 0x20},
		"out of range":      {0xa1, 0x01, 0x1b, 1, 0, 0, 0, 0, 0, 0, 0},
		"bad UTF-8":         {0xa1, 0x02, 0xa1, 0x01, 0x61, 0xff},
		"deep":              append(append([]byte{0xa1, 0x03}, nested...), 0x80),
		"huge array":        huge,
	} {
		var v outer
		if err := Unmarshal(b, &v); !errors.Is(err, ErrFormat) {
			t.Errorf("%s (% x): error %v, value %+v; want ErrFormat", name, b, err, v)
		}
	}
}

func TestUnmarshalNewer(t *testing.T) {
	b := []byte{0xa2, 0x01, 0x07, 0x18, 0x63, 0x61, 'x'} // {1: 7, 99: "x"}
	var v outer
	if err := UnmarshalNewer(b, &v); err != nil || v.N != 7 {
		t.Errorf("%+v, %v; want N 7", v, err)
	}
	if err := UnmarshalNewer(b[:4], &v); !errors.Is(err, ErrFormat) {
		t.Errorf("half a payload: %v, want ErrFormat", err)
	}
}

func FuzzPacket(f *testing.F) {
	f.Add([]byte{1, 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xa1, 0x01, 0x07})
	f.Add([]byte{1, 0, 64, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xa2, 0x01, 0x07, 0x02, 0xa1, 0x01, 0x61, 'x'})
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parsePacket(b)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error %v is not ErrFormat", err)
			}
			return
		}
		back, err := appendPacket(nil, &m)
		if err == nil && !bytes.Equal(back, b) {
			t.Fatalf("% x became % x", b, back)
		}
		var v outer
		if err := Unmarshal(m.Payload, &v); err != nil {
			return
		}
		if _, err := Marshal(v); err != nil {
			t.Fatalf("%+v was decoded but cannot be encoded: %v", v, err)
		}
	})
}
