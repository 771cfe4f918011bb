package vioscsi

import (
	"testing"

	"vmd/hv/virtio"
)

// memory is a medium that fails the test when it is asked for something
// outside itself, or to change.
type memory struct {
	t *testing.T
	n int64
}

func (m *memory) Size() int64                          { return m.n }
func (m *memory) Flush() error                         { return nil }
func (m *memory) Close() error                         { return nil }
func (m *memory) WriteAtV([][]byte, int64) error       { m.t.Fatal("written"); return nil }
func (m *memory) Discard(int64, int64) error           { m.t.Fatal("discarded"); return nil }
func (m *memory) WriteZeroes(int64, int64, bool) error { m.t.Fatal("zeroed"); return nil }

func (m *memory) ReadAtV(bufs [][]byte, off int64) error {
	for _, b := range bufs {
		if off < 0 || off > m.n || int64(len(b)) > m.n-off {
			m.t.Fatalf("%d bytes at %d of a medium of %d", len(b), off, m.n)
		}
		off += int64(len(b))
	}
	return nil
}

// cut splits b into pieces whose lengths come from cuts.
func cut(b, cuts []byte) [][]byte {
	var out [][]byte
	for _, c := range cuts {
		if n := min(int(c)*8+1, len(b)); n > 0 {
			out, b = append(out, b[:n]), b[n:]
		}
	}
	if len(b) > 0 {
		out = append(out, b)
	}
	return out
}

// FuzzCDB carries out whatever commands a guest sends, with whatever room for
// the answer, cut into whatever descriptors. Each is answered, within its room.
func FuzzCDB(f *testing.F) {
	add := func(room uint16, cdb ...byte) {
		f.Add(cdb, []byte{0, 0, 0, 0, 0, 0}, room, []byte{3, 9}, byte(0))
	}
	for op := range commands {
		if commands[op].fill != nil {
			add(64, byte(op), 1, 0, 0, 255, 0, 0, 0, 64, 0, 0, 0, 64)
		}
	}
	add(4096, opRead10, 0, 0, 0, 0, 1, 0, 0, 2)
	add(100, opRead16, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f.Add([]byte{opModeSense10, 0, 0x3f, 0, 0, 0, 0, 0xff, 0xff}, []byte{opStartStop, 0, 0, 0, 2}, uint16(8), []byte{}, byte(0))
	f.Add([]byte{}, []byte{}, uint16(0), []byte{1}, byte(9))
	f.Fuzz(func(t *testing.T, cdb, before []byte, room uint16, cuts []byte, target byte) {
		s := &server{image: &memory{t, 10 * blockSize}}
		s.drive = &drive{blocks: 10, loaded: true}
		for _, cdb := range [][]byte{before, cdb} {
			in := make([]byte, len(reqHeader{}))
			in[0], in[1] = 1, target
			copy(in[19:], cdb)
			out := make([]byte, int(room)+len(respHeader{}))
			s.chain = virtio.Chain{Readable: cut(in, cuts), Writable: cut(out, cuts)}
			if err := s.req.parse(&s.chain); err != nil {
				t.Fatal(err)
			}
			s.resp.set(0xaa, 0xaa, 0, noSense)
			n := s.do(&s.req)
			if int(n) < len(respHeader{}) || int(n) > len(out) {
				t.Fatalf("used length %d of %d", n, len(out))
			}
			if out[10] != statusGood && out[10] != statusCheckCondition || target != 0 && out[11] != VIRTIO_SCSI_S_BAD_TARGET {
				t.Fatalf("status %#x, response %d", out[10], out[11])
			}
		}
	})
}

func TestParseRefusesWhatCannotBeAnswered(t *testing.T) {
	for _, tc := range []struct {
		in, out int
		want    error
	}{{50, 108, errNoHeader}, {0, 0, errNoHeader}, {51, 107, errNoResponse}, {51, 108, nil}} {
		c := virtio.Chain{Readable: cut(make([]byte, tc.in), nil), Writable: cut(make([]byte, tc.out), nil)}
		if err := new(Request).parse(&c); err != tc.want {
			t.Errorf("%d bytes, room for %d: %v, want %v", tc.in, tc.out, err, tc.want)
		}
	}
}
