package vswitch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// groupDirs are where the names of link groups are given numbers, in the file
// group and in group.d/*.conf: first those of the distribution, then the
// administrator's, which win (iproute2, lib/rt_names.c).
var groupDirs = []string{"/usr/share/iproute2", "/etc/iproute2"}

// maxGroupFile is how much of such a file is read.
const maxGroupFile = 1 << 20

// group puts l into the first of names that has a number. A link is in one
// group only; without a number there is no group.
func (c *Conn) group(l netlink.Link, names []string) error {
	for _, name := range names {
		n, ok := c.groups[name]
		if !ok {
			continue
		}
		if l.Attrs().Group == n {
			return nil
		}
		if err := c.h.LinkSetGroup(l, int(n)); err != nil {
			return fmt.Errorf("put %s into group %s: %w", l.Attrs().Name, name, err)
		}
		return nil
	}
	return nil
}

func readGroups(dirs []string) (map[string]uint32, error) {
	groups := make(map[string]uint32)
	for _, dir := range dirs {
		more, err := filepath.Glob(filepath.Join(dir, "group.d", "*.conf"))
		if err != nil {
			return nil, err
		}
		for _, path := range append([]string{filepath.Join(dir, "group")}, more...) {
			f, err := os.Open(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("read interface groups: %w", err)
			}
			err = parseGroups(io.LimitReader(f, maxGroupFile), groups)
			f.Close()
			if err != nil {
				return nil, fmt.Errorf("read interface groups: %s: %w", path, err)
			}
		}
	}
	return groups, nil
}

// parseGroups reads lines of a number and a name. What does not look like one
// is passed over, as ip(8) does.
func parseGroups(r io.Reader, groups map[string]uint32) error {
	s := bufio.NewScanner(r)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		f := strings.Fields(line)
		if len(f) != 2 {
			continue
		}
		// Decimal or, after 0x, hexadecimal; ifi_group is an int.
		if n, err := strconv.ParseUint(f[0], 0, 31); err == nil {
			groups[f[1]] = uint32(n)
		}
	}
	return s.Err()
}
