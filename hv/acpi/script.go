package acpi

// Names of the fw_cfg files that Script speaks of: the blob and the RSDP.
const (
	TablesFile = "etc/acpi/tables"
	RSDPFile   = "etc/acpi/rsdp"
)

// Commands of a loader script (QEMU include/hw/acpi, bios-linker-loader).
const (
	cmdAllocate    = 1
	cmdAddPointer  = 2
	cmdAddChecksum = 3
	cmdSize        = 128
	fileNameSize   = 56

	zoneHigh = 1
	zoneFSeg = 2
)

// Script returns the content of etc/table-loader: the commands with which
// firmware places TablesFile and RSDPFile.
func (t *Tables) Script() []byte {
	var b []byte
	b = command(b, cmdAllocate, []string{TablesFile}, []uint32{alignment}, zoneHigh)
	b = command(b, cmdAllocate, []string{RSDPFile}, []uint32{16}, zoneFSeg)
	for _, p := range t.Pointers {
		b = command(b, cmdAddPointer, []string{TablesFile, TablesFile}, []uint32{uint32(p.Offset)}, byte(p.Size))
	}
	b = command(b, cmdAddPointer, []string{RSDPFile, TablesFile}, []uint32{uint32(RSDPPointer.Offset)}, byte(RSDPPointer.Size))
	for _, c := range t.Checksums {
		b = checksum(b, TablesFile, c)
	}
	for _, c := range RSDPChecksums {
		b = checksum(b, RSDPFile, c)
	}
	return b
}

func checksum(b []byte, file string, c Checksum) []byte {
	return command(b, cmdAddChecksum, []string{file}, []uint32{uint32(c.Offset), uint32(c.Start), uint32(c.Length)})
}

// command appends one command: its number, names, numbers and a last byte, as
// far as it has them.
func command(b []byte, cmd uint32, files []string, args []uint32, last ...byte) []byte {
	c := le.AppendUint32(make([]byte, 0, cmdSize), cmd)
	for _, f := range files {
		var n [fileNameSize]byte
		copy(n[:], f)
		c = append(c, n[:]...)
	}
	for _, a := range args {
		c = le.AppendUint32(c, a)
	}
	c = append(c, last...)
	return append(b, c[:cmdSize]...)
}
