package boot

// Sizes of a firmware image (OpenBSD vmd(8), vm.conf(5) boot). One of
// MinFirmware bytes has a reset vector and nothing else.
const (
	MinFirmware = 16
	MaxFirmware = 4 << 20
)

// IsFirmware says whether an image that was given as a kernel is none, but may
// be firmware: nothing that Load knows, compressed or not, and of the right
// size.
func IsFirmware(i Image) bool {
	if i.Size < MinFirmware || i.Size > MaxFirmware || isELF(i) || isGzip(i) {
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
