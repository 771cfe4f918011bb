package priv

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"vmd/internal/notation"
	"vmd/internal/vmop"
	"vmd/net/tap"
	"vmd/net/vswitch"
)

// maxGroups is how many groups an interface may be in: its own and its switch's,
// and some to spare.
const maxGroups = 8

// errInvalid says that parent asked for what it should not have.
var errInvalid = errors.New("invalid request")

// portOf checks r and makes a Port of it, without the tap's own address.
func portOf(r vmop.TapRequest) (vswitch.Port, error) {
	p := vswitch.Port{
		Tap:    r.Name,
		Alias:  r.Alias,
		Bridge: r.Bridge,
		VRF:    r.VRF,
		Groups: append(slices.Clip(r.Groups), defaultGroup),
	}
	if r.Locked {
		p.Guest = r.MAC
	}
	var err4, err6 error
	p.Address4, err4 = prefix(r.Address4, 32)
	p.Address6, err6 = prefix(r.Address6, 128)
	err := cmp.Or(
		optional("tap", r.Name), optional("bridge", r.Bridge),
		checkAlias(r.Alias), checkGroups(r.Groups), checkMAC(r.MAC),
		err4, err6,
	)
	if err == nil && (r.Queues < 0 || r.Queues > tap.MaxQueues) {
		err = fmt.Errorf("%w: %d queues", errInvalid, r.Queues)
	}
	return p, err
}

// optional is checkName for a name that need not be there.
func optional(what, s string) error {
	if s == "" {
		return nil
	}
	return checkName(what, s)
}

// checkName refuses what the kernel would not have as the name of a link
// (net/core/dev.c, dev_valid_name) or would fill in (dev_alloc_name), and what
// would garble a log.
func checkName(what, s string) error {
	if len(s) == 0 || len(s) >= unix.IFNAMSIZ || s == "." || s == ".." {
		return fmt.Errorf("%w: name of a %s: %q", errInvalid, what, s)
	}
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || c == '/' || c == ':' || c == '%' {
			return fmt.Errorf("%w: name of a %s: %q", errInvalid, what, s)
		}
	}
	return nil
}

func checkAlias(s string) error {
	if len(s) > vswitch.MaxAlias {
		return fmt.Errorf("%w: a description of %d bytes", errInvalid, len(s))
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return fmt.Errorf("%w: description %q", errInvalid, s)
		}
	}
	return nil
}

func checkGroups(groups []string) error {
	if len(groups) > maxGroups {
		return fmt.Errorf("%w: %d groups", errInvalid, len(groups))
	}
	for _, g := range groups {
		if err := checkName("group", g); err != nil {
			return err
		}
	}
	return nil
}

func checkMAC(m [6]byte) error {
	if m == [6]byte{} || m[0]&1 != 0 {
		return fmt.Errorf("%w: address %s of an interface", errInvalid, notation.MAC(m))
	}
	return nil
}

// prefix parses an address of a local interface with its length, or nothing.
func prefix(s string, bits int) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%w: %w", errInvalid, err)
	}
	a := p.Addr()
	if a.BitLen() != bits || a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%w: address %v of a local interface", errInvalid, p)
	}
	return p, nil
}
