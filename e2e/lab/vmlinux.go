package lab

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"

	"github.com/klauspost/compress/zstd"
)

// maxVMLinux bounds an unpacked kernel; Debian's has 51 MiB.
const maxVMLinux = 256 << 20

// extractVMLinux returns the ELF file inside a bzImage. The setup header says
// where the compressed payload lies (Documentation/arch/x86/boot.rst,
// payload_offset and payload_length); its last four bytes are the size of the
// ELF file.
func extractVMLinux(bzImage []byte) ([]byte, error) {
	if len(bzImage) < 0x250 || string(bzImage[0x202:0x206]) != "HdrS" {
		return nil, errors.New("read bzImage: no setup header")
	}
	setup := (uint64(bzImage[0x1f1]) + 1) * 512
	start := setup + uint64(binary.LittleEndian.Uint32(bzImage[0x248:]))
	end := start + uint64(binary.LittleEndian.Uint32(bzImage[0x24c:]))
	if end > uint64(len(bzImage)) || end < start+8 {
		return nil, fmt.Errorf("read bzImage: payload %#x-%#x is outside of the file", start, end)
	}
	size := binary.LittleEndian.Uint32(bzImage[end-4:])
	elf, err := decompress(bzImage[start:end-4], int(size))
	if err != nil {
		return nil, fmt.Errorf("unpack bzImage: %w", err)
	}
	if len(elf) != int(size) || !bytes.HasPrefix(elf, []byte("\x7fELF")) {
		return nil, fmt.Errorf("unpack bzImage: %d bytes, want an ELF file of %d", len(elf), size)
	}
	return elf, nil
}

func decompress(b []byte, size int) ([]byte, error) {
	if size > maxVMLinux {
		return nil, fmt.Errorf("unpacked size %d is too large", size)
	}
	switch {
	case bytes.HasPrefix(b, []byte("\x02\x21\x4c\x18")):
		return unlz4(b[4:], size)
	case bytes.HasPrefix(b, []byte("\x28\xb5\x2f\xfd")):
		d, err := zstd.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		return io.ReadAll(io.LimitReader(d, maxVMLinux))
	case bytes.HasPrefix(b, []byte("\x1f\x8b")):
		d, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.LimitReader(d, maxVMLinux))
	case bytes.HasPrefix(b, []byte("\xfd7zXZ")):
		cmd := exec.Command("xz", "-dc")
		cmd.Stdin = bytes.NewReader(b)
		return cmd.Output()
	}
	return nil, fmt.Errorf("unknown compression % x", b[:4])
}

// errLZ4 is returned for a block that does not follow its format.
var errLZ4 = errors.New("lz4: bad block")

// unlz4 unpacks the legacy frame of LZ4, which kernels are packed with: blocks
// that each begin with their length, up to the end.
func unlz4(in []byte, size int) ([]byte, error) {
	out := make([]byte, 0, size)
	for len(in) >= 4 {
		n := binary.LittleEndian.Uint32(in)
		in = in[4:]
		if uint64(n) > uint64(len(in)) {
			return nil, errLZ4
		}
		var err error
		if out, err = unlz4Block(out, in[:n], size); err != nil {
			return nil, err
		}
		in = in[n:]
	}
	return out, nil
}

// unlz4Block appends one block: a token (length of literals, length of the
// match), literals, offset of the match; each length of 15 goes on in further
// bytes. Matches do not reach back over the start of the block.
func unlz4Block(out, in []byte, limit int) ([]byte, error) {
	start := len(out)
	length := func(n int) int {
		if n != 15 {
			return n
		}
		for len(in) > 0 {
			b := in[0]
			in = in[1:]
			n += int(b)
			if b != 255 {
				return n
			}
		}
		return limit + 1
	}
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		lit := length(int(token >> 4))
		if lit > len(in) || len(out)+lit > limit {
			return nil, errLZ4
		}
		out, in = append(out, in[:lit]...), in[lit:]
		if len(in) == 0 {
			return out, nil // the last sequence has literals only
		}
		if len(in) < 2 {
			return nil, errLZ4
		}
		back := int(binary.LittleEndian.Uint16(in))
		in = in[2:]
		match := length(int(token&15)) + 4
		if back == 0 || back > len(out)-start || len(out)+match > limit {
			return nil, errLZ4
		}
		for range match { // byte by byte: a match may overlap itself
			out = append(out, out[len(out)-back])
		}
	}
	return out, nil
}
