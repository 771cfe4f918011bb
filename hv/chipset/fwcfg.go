package chipset

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"vmd/hv/mem"
)

// Where fw_cfg is, and its registers (QEMU docs/specs/fw_cfg.rst).
const (
	FWCfgPort = 0x510
	FWCfgSize = 12

	fwSelect  = 0 // 16 bits: which item, from its start
	fwData    = 1 // 8 bits: the next byte of it
	fwDMAHigh = 4 // 32 bits, big-endian, as is
	fwDMALow  = 8 // this one, whose write starts the transfer
)

// Items that have a number of their own.
const (
	fwSignature = 0x0000
	fwID        = 0x0001
	fwUUID      = 0x0002
	fwNoGraphic = 0x0004
	fwCPUs      = 0x0005
	fwMaxCPUs   = 0x000f
	fwDirectory = 0x0019
	fwFirstFile = 0x0020
)

// fwID's bits: the plain interface, and DMA.
const fwInterfaces = 1<<0 | 1<<1

// Bits of a DMA request's control word; a select has the item in its upper
// half.
const (
	fwDMAError  = 1 << 0
	fwDMARead   = 1 << 1
	fwDMASkip   = 1 << 2
	fwDMASelect = 1 << 3
	fwDMAWrite  = 1 << 4
)

const (
	fwDMAControl = 16 // bytes of a request: u32 control, u32 length, u64 address
	fwNameSize   = 56 // in the directory, with its NUL
	fwMaxFiles   = 64
	// fwMaxTransfer bounds what one request may move: no file is nearly as long.
	fwMaxTransfer = 16 << 20
)

// fwDMASignature is what the DMA registers read as.
const fwDMASignature = "QEMU CFG"

// FWCfgFile is a file that firmware can read.
type FWCfgFile struct {
	Name string // up to 55 bytes
	Data []byte
}

// FWCfgConfig is what a FWCfg needs of its machine.
type FWCfgConfig struct {
	Mem   *mem.Memory // for DMA
	UUID  [16]byte
	CPUs  int
	Files []FWCfgFile
}

// FWCfg is the device by which firmware learns what the machine has and what
// it is to boot. What it holds never changes, and a guest can only read it.
type FWCfg struct {
	mem   *mem.Memory
	items map[uint16][]byte

	mu   sync.Mutex
	item []byte // what is left of the selected one
	key  uint16
	high uint32 // of the next DMA request's address
}

// NewFWCfg makes the device, with nothing but the signature selected.
func NewFWCfg(c FWCfgConfig) (*FWCfg, error) {
	if c.Mem == nil || c.CPUs < 1 || c.CPUs > 1<<16-1 {
		return nil, fmt.Errorf("fw_cfg: no memory, or %d CPUs", c.CPUs)
	}
	le := binary.LittleEndian
	f := &FWCfg{mem: c.Mem, items: map[uint16][]byte{
		fwSignature: []byte("QEMU"),
		fwID:        le.AppendUint32(nil, fwInterfaces),
		fwUUID:      slices.Clone(c.UUID[:]),
		fwNoGraphic: {1, 0},
		fwCPUs:      le.AppendUint16(nil, uint16(c.CPUs)),
		fwMaxCPUs:   le.AppendUint16(nil, uint16(c.CPUs)),
	}}
	if err := f.addFiles(c.Files); err != nil {
		return nil, fmt.Errorf("fw_cfg: %w", err)
	}
	f.choose(fwSignature)
	return f, nil
}

// addFiles numbers the files by name and lists them in the directory.
func (f *FWCfg) addFiles(files []FWCfgFile) error {
	if len(files) > fwMaxFiles {
		return fmt.Errorf("%d files, at most %d", len(files), fwMaxFiles)
	}
	files = slices.Clone(files)
	slices.SortFunc(files, func(a, b FWCfgFile) int { return cmp.Compare(a.Name, b.Name) })
	be := binary.BigEndian
	dir := be.AppendUint32(nil, uint32(len(files)))
	for i, file := range files {
		if n := len(file.Name); n == 0 || n >= fwNameSize {
			return fmt.Errorf("file name %q: %d bytes, want 1 to %d", file.Name, n, fwNameSize-1)
		}
		if i > 0 && file.Name == files[i-1].Name {
			return fmt.Errorf("two files called %q", file.Name)
		}
		if len(file.Data) > fwMaxTransfer {
			return fmt.Errorf("file %q: %d bytes, at most %d", file.Name, len(file.Data), fwMaxTransfer)
		}
		key := uint16(fwFirstFile + i)
		f.items[key] = file.Data
		var name [fwNameSize]byte
		copy(name[:], file.Name)
		dir = be.AppendUint32(dir, uint32(len(file.Data)))
		dir = be.AppendUint16(dir, key)
		dir = append(append(dir, 0, 0), name[:]...)
	}
	f.items[fwDirectory] = dir
	return nil
}

// choose selects an item. One that is not there is empty.
func (f *FWCfg) choose(key uint16) { f.key, f.item = key, f.items[key] }

// Read implements bus.Device. Past an item's end there are zeros.
func (f *FWCfg) Read(off uint64, data []byte) {
	clear(data)
	switch {
	case off == fwData && len(data) == 1:
		f.mu.Lock()
		f.next(data)
		f.mu.Unlock()
	case off >= fwDMAHigh && off < FWCfgSize:
		copy(data, fwDMASignature[off-fwDMAHigh:])
	}
}

// next moves the item's next bytes into p, as far as there are any.
func (f *FWCfg) next(p []byte) { f.item = f.item[copy(p, f.item):] }

// Write implements bus.Device.
func (f *FWCfg) Write(off uint64, data []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case off == fwSelect && len(data) == 2:
		f.choose(binary.LittleEndian.Uint16(data))
	case off == fwDMAHigh && len(data) == 4:
		f.high = binary.BigEndian.Uint32(data)
	case off == fwDMALow && len(data) == 4:
		at := mem.GPA(f.high)<<32 | mem.GPA(binary.BigEndian.Uint32(data))
		f.high = 0
		f.dma(at)
	}
}

// dma carries out the request at an address of the guest's choice, and puts 0
// where its control word was, or the error bit. A request that is not in
// memory cannot be answered.
func (f *FWCfg) dma(at mem.GPA) {
	var req [fwDMAControl]byte
	if f.mem.Read(at, req[:]) != nil {
		return
	}
	be := binary.BigEndian
	control, n, addr := be.Uint32(req[0:]), be.Uint32(req[4:]), mem.GPA(be.Uint64(req[8:]))
	if control&fwDMASelect != 0 {
		f.choose(uint16(control >> 16))
	}
	var answer [4]byte
	if !f.transfer(control, n, addr) {
		be.PutUint32(answer[:], fwDMAError)
	}
	_ = f.mem.Write(at, answer[:]) // it was there to be read
}

// transfer does what control asks for and says whether it could.
func (f *FWCfg) transfer(control, n uint32, addr mem.GPA) bool {
	switch {
	case control&fwDMARead != 0:
		if n > fwMaxTransfer {
			return false
		}
		b, err := f.mem.Slice(addr, uint64(n))
		if err != nil {
			return false
		}
		had := min(len(f.item), len(b))
		f.next(b)
		clear(b[had:])
		f.mem.TouchedBytes(b)
	case control&fwDMAWrite != 0:
		return false // there is nothing to write to
	case control&fwDMASkip != 0:
		f.item = f.item[min(uint64(n), uint64(len(f.item))):]
	}
	return true
}

// FWCfgState is everything a FWCfg remembers, for saving and restoring it.
type FWCfgState struct {
	Key     uint16 `cbor:"1,keyasint"`
	Read    int64  `cbor:"2,keyasint"` // bytes of the selected item
	DMAHigh uint32 `cbor:"3,keyasint"`
}

// Save returns what the FWCfg remembers.
func (f *FWCfg) Save() FWCfgState {
	f.mu.Lock()
	defer f.mu.Unlock()
	return FWCfgState{f.key, int64(len(f.items[f.key]) - len(f.item)), f.high}
}

// Restore puts back what Save returned, into a device that holds the same.
func (f *FWCfg) Restore(s FWCfgState) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.items[s.Key]); s.Read < 0 || s.Read > int64(n) {
		return fmt.Errorf("fw_cfg: %d bytes of item %#x were read, it has %d here", s.Read, s.Key, n)
	}
	f.choose(s.Key)
	f.item = f.item[s.Read:]
	f.high = s.DMAHigh
	return nil
}
