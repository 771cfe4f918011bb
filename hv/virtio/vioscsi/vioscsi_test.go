package vioscsi_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"vmd/hv/disk"
	"vmd/hv/mem"
	"vmd/hv/pci"
	"vmd/hv/virtio"
	"vmd/hv/virtio/vioscsi"
	"vmd/hv/virtio/virtiotest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	blocks   = 700 // 9 seconds and 25 frames
	dataSize = 128 << 10
	respSize = 108
)

// medium has a pattern and an odd end.
func medium(t testing.TB) (disk.Image, []byte) {
	t.Helper()
	b := make([]byte, blocks*2048+512)
	for i := range b {
		b[i] = byte(i*7 + i>>11)
	}
	path := filepath.Join(t.TempDir(), "cd.iso")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	img, err := disk.NewRaw(f, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { img.Close() })
	return img, b
}

// guest is a driver of the adapter.
type guest struct {
	*virtiotest.Driver
	t          testing.TB
	ctl, q     *virtiotest.Queue
	head, resp mem.GPA
	data       mem.GPA
}

func boot(t testing.TB, img disk.Image, warn func(error)) *guest {
	t.Helper()
	h := virtiotest.NewHost(t, 4<<20)
	h.Plug(pci.SlotCD, vioscsi.New(img), warn)
	g := &guest{t: t, Driver: virtiotest.NewDriver(h, pci.SlotCD)}
	g.start()
	return g
}

func (g *guest) start() {
	g.Init(0)
	g.ctl, g.q = g.Queue(0, 16), g.Queue(2, 64)
	g.Start()
	if g.data == 0 {
		g.head, g.resp, g.data = g.Host.Alloc(64), g.Host.Alloc(128), g.Host.Alloc(dataSize)
	}
}

// answer is what came back for a command.
type answer struct {
	response, status byte
	residual         uint32
	sense            [3]byte // key, ASC, ASCQ
	data             []byte
}

var drive = []byte{1, 0, 0x40, 0}

// cmd sends a command with room for n bytes of data.
func (g *guest) cmd(lun []byte, n int, cdb ...byte) answer {
	g.t.Helper()
	head := g.Host.Bytes(g.head, 51)
	clear(head)
	copy(head, lun)
	copy(head[19:], cdb)
	parts := []virtiotest.Part{virtiotest.In(g.head, 51), virtiotest.Out(g.resp, respSize)}
	if n > 0 {
		parts = append(parts, virtiotest.Out(g.data, n))
	}
	g.q.Add(parts...)
	g.q.Kick()
	_, used := g.q.Wait()
	r := g.Host.Bytes(g.resp, respSize)
	a := answer{response: r[11], status: r[10], residual: binary.LittleEndian.Uint32(r[4:])}
	got := int(used) - respSize
	if got < 0 || n-got != int(a.residual) {
		g.t.Errorf("% x: used %d of %d, residual %d", cdb, used, n, a.residual)
	}
	a.data = bytes.Clone(g.Host.Bytes(g.data, max(got, 0)))
	senseLen := binary.LittleEndian.Uint32(r)
	if a.status == 2 {
		if senseLen != 18 || r[12] != 0x70 || r[12+7] != 10 {
			g.t.Errorf("% x: sense of %d bytes % x", cdb, senseLen, r[12:30])
		}
		a.sense = [3]byte{r[14], r[24], r[25]}
	} else if senseLen != 0 {
		g.t.Errorf("% x: sense of %d bytes without need", cdb, senseLen)
	}
	return a
}

func TestConfig(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	var got []byte
	for off := range uint64(36) {
		got = append(got, byte(g.Read(g.Device+off, 1)))
	}
	le := binary.LittleEndian
	for i, want := range []uint32{1, 126, 0xffff, 128, 16, 96, 32} {
		if v := le.Uint32(got[4*i:]); v != want {
			t.Errorf("field %d is %d, want %d", i, v, want)
		}
	}
	if !bytes.Equal(got[28:], make([]byte, 8)) {
		t.Errorf("highest channel, target, unit: % x", got[28:])
	}
	if off := g.Read(g.Device+36, 4); off != 0 {
		t.Errorf("beyond the end: %#x", off)
	}
	g.Write(g.Device+24, 4, 64) // changes nothing
	if v := g.Read(g.Device+24, 4); v != 32 {
		t.Errorf("cdb_size %d, want 32", v)
	}
	if id := g.Config(0, 4); id != 0x10481af4 {
		t.Errorf("PCI id %#x", id)
	}
}

func TestAnswers(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	text := func(s string) string { return hex.EncodeToString([]byte(s)) }
	page01 := "010a00050000000000000000"
	page2a := "2a140b00000029002260000000002260" + "000000000000"
	for _, tc := range []struct {
		name string
		cdb  string
		want string // data
	}{
		{"test unit ready", "00", ""},
		{"request sense", "0300000012", "700000000000000a" + strings.Repeat("00", 10)},
		{"inquiry", "1200000024", "058005021f000000" + text("vmd     VMM CD-ROM      1.0 ")},
		{"inquiry, start", "1200000005", "058005021f"},
		{"supported pages", "12010000ff", "05000003008083"},
		{"serial", "12018000ff", "05800007" + text("vmd-cd0")},
		{"device id", "12018300ff", "0583001c02010018" + text("vmd     VMM CD-ROM      ")},
		{"mode sense 6", "1a002a00ff", "19000000" + page2a},
		{"mode sense 6, all", "1a003f00ff", "25000000" + page01 + page2a},
		{"mode sense 6, no subpages", "1a003fffff", "25000000" + page01 + page2a},
		{"mode sense 10", "5a002a00000000001000", "001c000000000000" + page2a[:16]},
		{"mode sense 10, changeable", "5a00410000000000ff00", "0012000000000000" + "010a" + strings.Repeat("00", 10)},
		{"start", "1b00000001", ""},
		{"prevent", "1e00000001", ""},
		{"allow", "1e00000000", ""},
		{"capacity", "25", "000002bb00000800"},
		{"capacity 16", "9e1000000000000000000000000c", "00000000000002bb00000800"},
		{"TOC", "4300000000000000ff00", "001201010014010000000000" + "0014aa00000002bc"},
		{"TOC in time", "4302000000000000ff00", "001201010014010000000200" + "0014aa0000000b19"},
		{"TOC, lead-out", "430000000000aa000c00", "000a01010014aa00000002bc"},
		{"sessions", "43000100000000000c00", "000a01010014010000000000"},
		{"sessions, as before MMC", "43000000000000000c40", "000a01010014010000000000"},
		{"configuration", "46000000000000002000", "0000000c00000008" + "0000030400080100"},
		{"later features", "46020020000000002000", "0000000400000008"},
		{"event", "4a010000100000000800", "0006041000020000"},
		{"no such event", "4a010000020000000800", "00028010"},
		{"disc information", "51000000000000002200", "00200e0101010120" + strings.Repeat("00", 26)},
		{"track information", "52010000000100002400", "0022010100040100" + strings.Repeat("00", 16) + "000002bc" + strings.Repeat("00", 8)},
		{"mechanism", "bd000000000000000008", strings.Repeat("00", 8)},
		{"units", "a00000000000000000ff", "0000000800000000" + strings.Repeat("00", 8)},
	} {
		cdb, err := hex.DecodeString(tc.cdb)
		if err != nil {
			t.Fatal(err)
		}
		a := g.cmd(drive, 256, cdb...)
		if got := hex.EncodeToString(a.data); a.response != 0 || a.status != 0 || got != tc.want {
			t.Errorf("%s: response %d, status %d, sense % x, data\n%s, want\n%s", tc.name, a.response, a.status, a.sense, got, tc.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	for _, tc := range []struct {
		name, cdb string
		want      [3]byte
	}{
		{"write", "2a000000000000000100", [3]byte{5, 0x20, 0}},
		{"nonsense", "ff", [3]byte{5, 0x20, 0}},
		{"page of inquiry", "12018100ff", [3]byte{5, 0x24, 0}},
		{"page without EVPD", "12008000ff", [3]byte{5, 0x24, 0}},
		{"mode page", "1a000800ff", [3]byte{5, 0x24, 0}},
		{"mode subpage", "1a002a01ff", [3]byte{5, 0x24, 0}},
		{"saved mode page", "1a00ea00ff", [3]byte{5, 0x39, 0}},
		{"second track", "4300000000000200ff00", [3]byte{5, 0x24, 0}},
		{"raw TOC", "4300020000000000ff00", [3]byte{5, 0x24, 0}},
		{"event by interrupt", "4a000000100000000800", [3]byte{5, 0x24, 0}},
		{"other disc information", "51010000000000002200", [3]byte{5, 0x24, 0}},
		{"other service", "9e110000000000000000000000ff", [3]byte{5, 0x24, 0}},
		{"read after the end", "2800000002bc00000100", [3]byte{5, 0x21, 0}},
		{"read over the end", "2800000002bb00000200", [3]byte{5, 0x21, 0}},
		{"read far away", "88000fffffffffffffff000000010000", [3]byte{5, 0x21, 0}},
		{"read that wraps", "8800ffffffffffffffff000000020000", [3]byte{5, 0x21, 0}},
		{"endless read", "a80000000000ffffffff0000", [3]byte{5, 0x21, 0}},
	} {
		cdb, err := hex.DecodeString(tc.cdb)
		if err != nil {
			t.Fatal(err)
		}
		a := g.cmd(drive, 256, cdb...)
		if a.response != 0 || a.status != 2 || a.sense != tc.want || len(a.data) != 0 {
			t.Errorf("%s: %+v, want sense % x", tc.name, a, tc.want)
		}
	}
}

func TestReads(t *testing.T) {
	img, want := medium(t)
	g := boot(t, img, nil)
	for _, tc := range []struct {
		name, cdb string
		lba, n    int // in blocks
	}{
		{"6", "080000050200", 5, 2},
		{"6, 256 blocks", "080000000000", 0, 256},
		{"10", "28000000010200000300", 258, 3},
		{"12", "a800000002bb000000010000", 699, 1},
		{"16", "88000000000000000007000000020000", 7, 2},
		{"10, nothing", "2800000002bc00000000", 700, 0},
	} {
		cdb, err := hex.DecodeString(tc.cdb)
		if err != nil {
			t.Fatal(err)
		}
		if tc.n > dataSize/2048 {
			a := g.cmd(drive, dataSize, cdb...) // as much as fits, and a word about it
			if a.response != 1 || a.status != 0 || !bytes.Equal(a.data, want[:dataSize]) {
				t.Errorf("%s: response %d, status %d, %d bytes", tc.name, a.response, a.status, len(a.data))
			}
			continue
		}
		a := g.cmd(drive, tc.n*2048, cdb...)
		if a.response != 0 || a.status != 0 || !bytes.Equal(a.data, want[tc.lba*2048:(tc.lba+tc.n)*2048]) {
			t.Errorf("%s: %d %d % x, %d bytes", tc.name, a.response, a.status, a.sense, len(a.data))
		}
	}
}

func TestFramingIsArbitrary(t *testing.T) {
	img, want := medium(t)
	g := boot(t, img, nil)
	head := g.Host.Bytes(g.head, 51)
	clear(head)
	copy(head, drive)
	copy(head[19:], []byte{0x28, 0, 0, 0, 0, 1, 0, 0, 1})
	// Response and data share descriptors.
	g.q.Add(virtiotest.In(g.head, 10), virtiotest.In(g.head+10, 41),
		virtiotest.Out(g.data, 100), virtiotest.Out(g.data+100, 1000), virtiotest.Out(g.data+1100, 108+2048-1100+5))
	g.q.Kick()
	if _, n := g.q.Wait(); n != 108+2048 {
		t.Errorf("used %d", n)
	}
	b := g.Host.Bytes(g.data, 108+2048)
	if b[10] != 0 || b[11] != 0 || b[4] != 5 || !bytes.Equal(b[108:], want[2048:4096]) {
		t.Errorf("response % x", b[:12])
	}
}

func TestOtherTargets(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	for _, lun := range [][]byte{{1, 1, 0x40, 0}, {1, 255, 0, 0}, {1, 0, 0x40, 1}, {1, 0, 0x41, 0}, {0xc1, 1, 0, 0}, {0}} {
		if a := g.cmd(lun, 36, 0x12, 0, 0, 0, 36); a.response != 3 || len(a.data) != 0 {
			t.Errorf("unit % x: %+v, want bad target", lun, a)
		}
	}
	if a := g.cmd([]byte{1, 0, 0, 0}, 36, 0x12, 0, 0, 0, 36); a.response != 0 || len(a.data) != 36 {
		t.Errorf("unit in the other format: %+v", a)
	}
}

func TestEject(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	event := func() string { return hex.EncodeToString(g.cmd(drive, 8, 0x4a, 1, 0, 0, 16, 0, 0, 0, 8).data) }
	g.cmd(drive, 0, 0x1e, 0, 0, 0, 1)
	if a := g.cmd(drive, 0, 0x1b, 0, 0, 0, 2); a.sense != [3]byte{5, 0x53, 2} {
		t.Errorf("eject of a locked medium: %+v", a)
	}
	g.cmd(drive, 0, 0x1e, 0, 0, 0, 0)
	if a := g.cmd(drive, 0, 0x1b, 0, 0, 0, 2); a.status != 0 {
		t.Errorf("eject: %+v", a)
	}
	if got := event(); got != "0006041003000000" {
		t.Errorf("event %s", got)
	}
	for _, cdb := range [][]byte{{0}, {0x25}, {0x28, 0, 0, 0, 0, 0, 0, 0, 1}, {0x43}, {0x51}} {
		if a := g.cmd(drive, 2048, cdb...); a.sense != [3]byte{2, 0x3a, 0} {
			t.Errorf("% x without a medium: %+v", cdb, a)
		}
	}
	if a := g.cmd(drive, 36, 0x12, 0, 0, 0, 36); a.status != 0 {
		t.Errorf("inquiry without a medium: %+v", a)
	}
	g.cmd(drive, 0, 0x1b, 0, 0, 0, 3)
	if got := event(); got != "0006041002020000" {
		t.Errorf("event %s", got)
	}
	if got := event(); got != "0006041000020000" {
		t.Errorf("event again %s", got)
	}
	g.cmd(drive, 0, 0x1b, 0, 0, 0, 2)
	g.start() // a reset
	if a := g.cmd(drive, 0, 0); a.status != 0 {
		t.Errorf("after a reset: %+v", a)
	}
}

func TestControlQueue(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	for _, tc := range []struct {
		name     string
		typ      byte
		in, room int
		want     string
	}{
		{"abort", 0, 24, 1, "00"},
		{"query", 1, 16, 5, "0000000000"},
		{"subscribe", 2, 16, 5, "0000000000"},
		{"unknown", 9, 4, 1, "09"},
	} {
		b := g.Host.Bytes(g.head, tc.in)
		clear(b)
		b[0] = tc.typ
		copy(g.Host.Bytes(g.resp, 8), "\xff\xff\xff\xff\xff\xff\xff\xff")
		g.ctl.Add(virtiotest.In(g.head, tc.in), virtiotest.Out(g.resp, tc.room))
		g.ctl.Kick()
		_, n := g.ctl.Wait()
		if got := hex.EncodeToString(g.Host.Bytes(g.resp, int(n))); got != tc.want {
			t.Errorf("%s: %s, want %s", tc.name, got, tc.want)
		}
	}
}

// broken is a medium that cannot be read.
type broken struct{ disk.Image }

func (broken) Size() int64                   { return 1 << 20 }
func (broken) ReadAtV([][]byte, int64) error { return errors.New("scratched") }

func TestReadError(t *testing.T) {
	g := boot(t, broken{}, nil)
	if a := g.cmd(drive, 2048, 0x28, 0, 0, 0, 0, 0, 0, 0, 1); a.sense != [3]byte{3, 0x11, 0} {
		t.Errorf("%+v", a)
	}
}

func TestBrokenRequestsNeedAReset(t *testing.T) {
	img, _ := medium(t)
	for name, send := range map[string]func(g *guest){
		"short header":     func(g *guest) { g.q.Add(virtiotest.In(g.head, 50), virtiotest.Out(g.resp, 108)); g.q.Kick() },
		"short response":   func(g *guest) { g.q.Add(virtiotest.In(g.head, 51), virtiotest.Out(g.resp, 107)); g.q.Kick() },
		"control header":   func(g *guest) { g.ctl.Add(virtiotest.In(g.head, 3), virtiotest.Out(g.resp, 5)); g.ctl.Kick() },
		"control response": func(g *guest) { g.ctl.Add(virtiotest.In(g.head, 24)); g.ctl.Kick() },
	} {
		t.Run(name, func(t *testing.T) {
			g := boot(t, img, func(error) {})
			clear(g.Host.Bytes(g.head, 64))
			send(g)
			g.WaitConfig()
			if g.Status()&virtio.VIRTIO_CONFIG_S_NEEDS_RESET == 0 {
				t.Errorf("status %#x", g.Status())
			}
			g.start()
			if a := g.cmd(drive, 0, 0); a.status != 0 {
				t.Errorf("after a reset: %+v", a)
			}
		})
	}
}

func TestCommandsDoNotAllocate(t *testing.T) {
	img, _ := medium(t)
	g := boot(t, img, nil)
	head := g.Host.Bytes(g.head, 51)
	clear(head)
	copy(head, drive)
	parts := []virtiotest.Part{virtiotest.In(g.head, 51), virtiotest.Out(g.resp, respSize), virtiotest.Out(g.data, 8192)}
	for name, cdb := range map[string][]byte{"read": {0x28, 0, 0, 0, 0, 3, 0, 0, 4}, "inquiry": {0x12, 0, 0, 0, 36}} {
		clear(head[19:])
		copy(head[19:], cdb)
		do := func() { g.q.Add(parts...); g.q.Kick(); g.q.Wait() }
		do()
		if n := testing.AllocsPerRun(100, do); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestPause(t *testing.T) {
	img, _ := medium(t)
	h := virtiotest.NewHost(t, 4<<20)
	dev := vioscsi.New(img)
	h.Plug(pci.SlotCD, dev, nil)
	g := &guest{t: t, Driver: virtiotest.NewDriver(h, pci.SlotCD)}
	dev.Pause() // not active yet
	dev.Resume()
	g.start()
	dev.Pause()
	clear(g.Host.Bytes(g.head, 64))
	g.q.Add(virtiotest.In(g.head, 51), virtiotest.Out(g.resp, respSize))
	g.q.Ring()
	if _, _, ok := g.q.Next(); ok {
		t.Error("a paused drive answers")
	}
	dev.Resume()
	g.q.Wait()
}
