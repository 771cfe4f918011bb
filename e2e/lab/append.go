package lab

// AppendFile adds a program to an initramfs: the kernel unpacks archives that
// stand behind each other (Documentation/driver-api/early-userspace/
// buffer-format.rst).
func AppendFile(initramfs []byte, name string, program []byte) []byte {
	var c cpio
	c.file(name, program)
	for len(initramfs)%4 != 0 {
		initramfs = append(initramfs, 0)
	}
	return append(initramfs, c.finish()...)
}
