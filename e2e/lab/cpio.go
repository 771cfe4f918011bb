package lab

import (
	"bytes"
	"fmt"
)

// cpio writes an archive in the "newc" form that Linux unpacks as its
// initramfs (Documentation/driver-api/early-userspace/buffer-format.rst).
// Writing it here sets owners and device nodes without being root.
type cpio struct {
	buf bytes.Buffer
	ino int
}

// Types of a file in its mode (inode(7)).
const (
	modeDir  = 0o040000
	modeChar = 0o020000
	modeFile = 0o100000
	modeLink = 0o120000
)

func (c *cpio) dir(name string)            { c.entry(name, modeDir|0o755, 0, 0, nil) }
func (c *cpio) link(name, target string)   { c.entry(name, modeLink|0o777, 0, 0, []byte(target)) }
func (c *cpio) file(name string, b []byte) { c.entry(name, modeFile|0o755, 0, 0, b) }
func (c *cpio) char(name string, major, minor int) {
	c.entry(name, modeChar|0o600, major, minor, nil)
}

func (c *cpio) entry(name string, mode, major, minor int, data []byte) {
	c.ino++
	// magic, inode, mode, uid, gid, links, mtime, size, device of the
	// file (2), device it is (2), length of the name with its NUL, check.
	fmt.Fprintf(&c.buf, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X",
		c.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name)+1, 0)
	c.buf.WriteString(name)
	c.buf.WriteByte(0)
	c.pad()
	c.buf.Write(data)
	c.pad()
}

// pad fills up to a multiple of four bytes, after each name and file.
func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}

// finish returns the archive.
func (c *cpio) finish() []byte {
	c.entry("TRAILER!!!", 0, 0, 0, nil)
	return c.buf.Bytes()
}
