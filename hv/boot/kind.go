package boot

// Sizes of a firmware image (OpenBSD vmd(8), vm.conf(5) boot). One of
// MinFirmware bytes has a reset vector and nothing else.
const (
	MinFirmware = 16
	MaxFirmware = 4 << 20
)

// IsFirmware says whether an image that was given as a kernel is none, but may
// be firmware: nothing that Load knows, compressed or not, no text, and of the
// right size.
func IsFirmware(i Image) bool {
	if i.Size < MinFirmware || i.Size > MaxFirmware || isELF(i) || isGzip(i) || isText(i) {
		return false
	}
	l := loader{Params: Params{Kernel: i}}
	for _, f := range formats {
		if f.match(&l) {
			return false
		}
	}
	return true
}

// isText reports whether an image begins with the bytes of a text and nothing
// else, as a script does, or what a server sends instead of a kernel. 0xff is no
// byte of a text, but what flash memory has that nothing was written to.
func isText(i Image) bool {
	head := make([]byte, min(i.Size, 512))
	if i.read(head, 0) != nil {
		return false
	}
	for _, c := range head {
		if (c < ' ' || c == 0x7f || c == 0xff) && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}
