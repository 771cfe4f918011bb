package boot

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"testing"

	"vmd/hv/mem"
)

// Kernels that consist of nothing but what a loader looks at.

const mi = 1 << 20

func image(b []byte) Image { return Image{bytes.NewReader(b), int64(len(b))} }

func guest(t testing.TB, size int) *mem.Memory {
	t.Helper()
	m, err := mem.New(mem.Region{Base: 0, Bytes: make([]byte, size)})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// bzImage returns an image with one setup sector and the given body, after
// change has had its way with it.
func bzImage(body []byte, change func(b []byte)) []byte {
	b := make([]byte, 2*sectorSize, 2*sectorSize+len(body))
	le := binary.LittleEndian
	b[offSetupSects] = 1
	le.PutUint16(b[0x1fe:], 0xaa55)
	b[0x200], b[offJump] = 0xeb, 0x6a
	copy(b[offMagic:], "HdrS")
	le.PutUint16(b[offVersion:], 0x20f)
	b[offLoadFlags] = loadedHigh
	le.PutUint32(b[offInitrdMax:], 0x7fffffff)
	le.PutUint32(b[offAlignment:], 2*mi)
	b[offRelocatable] = 1
	le.PutUint16(b[offXLoadFlags:], xlfKernel64)
	le.PutUint32(b[offCmdlineSize:], 2047)
	le.PutUint64(b[offPrefAddress:], 16*mi)
	le.PutUint32(b[offInitSize:], 4*mi)
	le.PutUint32(b[0x26c:], 0x11223344) // after the header's end: code
	if change != nil {
		change(b)
	}
	return append(b, body...)
}

type testSeg struct {
	typ          uint32
	paddr, memsz uint64
	align        uint64
	data         []byte
}

func load(paddr, memsz uint64, data string) testSeg {
	return testSeg{ptLoad, paddr, memsz, 4096, []byte(data)}
}

// xenNote is a PT_NOTE segment with somebody else's note before Xen's.
func xenNote(desc ...byte) testSeg {
	b := note("Linux\x00", 1, []byte{1, 2, 3, 4})
	return testSeg{ptNote, 0, 0, 4, append(b, note(xenNoteName, xenPhys32Entry, desc)...)}
}

func note(name string, typ uint32, desc []byte) []byte {
	var b []byte
	for _, v := range []uint32{uint32(len(name)), uint32(len(desc)), typ} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	for _, s := range [][]byte{[]byte(name), desc} {
		b = append(b, s...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func elf64(entry uint64, segs ...testSeg) []byte {
	le := binary.LittleEndian
	b := make([]byte, ehdr64Size+phdr64Size*len(segs))
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[16:], etExec)
	le.PutUint16(b[18:], emX86_64)
	le.PutUint64(b[24:], entry)
	le.PutUint64(b[32:], ehdr64Size)
	le.PutUint16(b[54:], phdr64Size)
	le.PutUint16(b[56:], uint16(len(segs)))
	for i, s := range segs {
		p := b[ehdr64Size+phdr64Size*i:]
		le.PutUint32(p, s.typ)
		le.PutUint64(p[8:], uint64(len(b)))
		le.PutUint64(p[24:], s.paddr)
		le.PutUint64(p[32:], uint64(len(s.data)))
		le.PutUint64(p[40:], s.memsz)
		le.PutUint64(p[48:], s.align)
		b = append(b, s.data...)
	}
	return b
}

func elf32(entry uint32, segs ...testSeg) []byte {
	le := binary.LittleEndian
	b := make([]byte, ehdr32Size+phdr32Size*len(segs))
	copy(b, "\x7fELF\x01\x01\x01")
	le.PutUint16(b[16:], etExec)
	le.PutUint16(b[18:], emI386)
	le.PutUint32(b[24:], entry)
	le.PutUint32(b[28:], ehdr32Size)
	le.PutUint16(b[42:], phdr32Size)
	le.PutUint16(b[44:], uint16(len(segs)))
	for i, s := range segs {
		p := b[ehdr32Size+phdr32Size*i:]
		for j, v := range []uint64{uint64(s.typ), uint64(len(b)), 0, s.paddr, uint64(len(s.data)), s.memsz, 0, s.align} {
			le.PutUint32(p[4*j:], uint32(v))
		}
		b = append(b, s.data...)
	}
	return b
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func bytesAt(t testing.TB, m *mem.Memory, at mem.GPA, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if err := m.Read(at, b); err != nil {
		t.Fatalf("read %d bytes at %#x: %v", n, at, err)
	}
	return b
}

func u64At(t testing.TB, m *mem.Memory, at mem.GPA) uint64 {
	return binary.LittleEndian.Uint64(bytesAt(t, m, at, 8))
}

func u32At(t testing.TB, m *mem.Memory, at mem.GPA) uint32 {
	return binary.LittleEndian.Uint32(bytesAt(t, m, at, 4))
}
