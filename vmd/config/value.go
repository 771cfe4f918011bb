package config

import (
	"encoding/hex"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"vmd/internal/scaled"
)

// owner parses NUMBER or STRING. Digits in a string are a name, not an id.
func (p *parser) owner() (Owner, error) {
	if p.peek().kind == tokNumber {
		// The largest uid is (uid_t)-1, which means "none".
		n, err := p.number("user id", 0, math.MaxUint32-1)
		return Owner{UID: uint32(n)}, err
	}
	s, err := p.str("a user, user:group or :group")
	if err != nil {
		return Owner{}, err
	}
	var o Owner
	user, group, _ := strings.Cut(s, ":")
	if user != "" {
		if o.UID, err = p.users.User(user); err != nil {
			return o, p.fail("owner %s: user %s: %v", clip(s), clip(user), err)
		}
	}
	if group != "" {
		if o.GID, err = p.users.Group(group); err != nil {
			return o, p.fail("owner %s: group %s: %v", clip(s), clip(group), err)
		}
		o.HasGID = true
	}
	return o, nil
}

// size parses NUMBER or STRING, a number of bytes from min to max.
func (p *parser) size(what string, min, max int64) (int64, error) {
	t := p.peek()
	n := t.num
	if t.kind != tokNumber {
		s, err := p.str(what + ", a size")
		if err != nil {
			return 0, err
		}
		if n, err = scaled.Parse(s); err != nil {
			return 0, p.fail("%s %s: %v", what, clip(s), err)
		}
	} else {
		p.take()
	}
	if n < min {
		return 0, p.fail("%s %s must be at least %s%s", what, clip(t.text), short(min), hint(n, t.text))
	}
	if n > max {
		return 0, p.fail("%s %s is too large (limit is %s)", what, clip(t.text), short(max))
	}
	return n, nil
}

// short prints a size without a decimal that says nothing.
func short(n int64) string {
	s := scaled.Format(uint64(n))
	return strings.Replace(s, ".0", "", 1)
}

// hint helps who left the unit away.
func hint(n int64, text string) string {
	if n < 1 || n > MaxMemory>>20 || !isDigit(int(text[len(text)-1])) {
		return ""
	}
	return fmt.Sprintf("; it is in bytes: did you mean %dM?", n)
}

// mac parses six hexadecimal numbers with colons between them.
func mac(s string) (m [6]byte, ok bool) {
	parts := strings.Split(s, ":")
	if len(parts) != len(m) {
		return m, false
	}
	for i, part := range parts {
		// ParseUint takes a sign or an underscore for an error; two digits is
		// all that ether_aton(3) reads.
		n, err := strconv.ParseUint(part, 16, 8)
		if err != nil || len(part) > 2 {
			return m, false
		}
		m[i] = byte(n)
	}
	return m, true
}

// uuid parses the form of RFC 9562, 4.
func uuid(s string) (u [16]byte, ok bool) {
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return u, false
	}
	b, err := hex.DecodeString(s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:])
	if err != nil {
		return u, false
	}
	copy(u[:], b)
	return u, u != [16]byte{}
}

// prefix4 parses address/bits as inet_net_pton(3) does: octets at the end may be
// missing. The default is the most bits that leave room for a VM and an
// interface (vmd(8), vm_priv_addr): 16.
func prefix4(s string) (netip.Prefix, error) {
	addr, n, err := splitPrefix(s, 1, 16)
	if err != nil {
		return netip.Prefix{}, err
	}
	parts := strings.Split(addr, ".")
	if len(parts) > 4 {
		return netip.Prefix{}, fmt.Errorf("not an IPv4 address")
	}
	var a [4]byte
	for i, part := range parts {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil || len(part) > 3 {
			return netip.Prefix{}, fmt.Errorf("not an IPv4 address")
		}
		a[i] = byte(v)
	}
	return masked(netip.AddrFrom4(a), n)
}

// prefix6 parses address/bits. The interface's half of an address is vmd's own.
func prefix6(s string) (netip.Prefix, error) {
	addr, n, err := splitPrefix(s, 0, 64)
	if err != nil {
		return netip.Prefix{}, err
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || !a.Is6() || a.Zone() != "" {
		return netip.Prefix{}, fmt.Errorf("not an IPv6 address")
	}
	return masked(a, n)
}

// splitPrefix parts address and length; without a length it is max.
func splitPrefix(s string, min, max int) (string, int, error) {
	addr, bits, ok := strings.Cut(s, "/")
	if !ok {
		return addr, max, nil
	}
	n, err := strconv.ParseUint(bits, 10, 8)
	if err != nil {
		return "", 0, fmt.Errorf("bad prefix length %s", clip(bits))
	}
	if int(n) < min || int(n) > max {
		return "", 0, fmt.Errorf("prefix length %d is out of range: %d to %d", n, min, max)
	}
	return addr, int(n), nil
}

func masked(a netip.Addr, bits int) (netip.Prefix, error) {
	p := netip.PrefixFrom(a, bits)
	if p.Masked() != p {
		return netip.Prefix{}, fmt.Errorf("bad mask: the address has bits outside of /%d", bits)
	}
	return p, nil
}

// timeUnits are the suffixes of a duration.
var timeUnits = map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour}

// duration parses a NUMBER of seconds, or a word such as 90s, 5m or 2h.
func (p *parser) duration(what string, max time.Duration) (time.Duration, error) {
	t := p.peek()
	n, unit := t.num, time.Second
	if t.kind == tokNumber {
		p.take()
	} else {
		s, err := p.str(what + ", seconds or a time such as 5m")
		if err != nil {
			return 0, err
		}
		last := len(s) - 1
		if last < 1 || timeUnits[s[last]] == 0 {
			return 0, p.fail("%s %s is not a time such as 90, 90s, 5m or 2h", what, clip(s))
		}
		unit = timeUnits[s[last]]
		v, err := strconv.ParseUint(s[:last], 10, 31)
		if err != nil {
			return 0, p.fail("%s %s is not a time such as 90, 90s, 5m or 2h", what, clip(s))
		}
		n = int64(v)
	}
	if n < 1 || n > int64(max/unit) {
		return 0, p.fail("%s %s is out of range: 1s to %s", what, clip(t.text), max)
	}
	return time.Duration(n) * unit, nil
}

// groupError is vmd(8)'s priv_validgroup: a digit at the end would look like an
// interface.
func groupError(s string) string {
	switch {
	case s == "":
		return ""
	case len(s) > MaxIfName:
		return fmt.Sprintf("longer than %d bytes", MaxIfName)
	case isDigit(int(s[len(s)-1])):
		return "it ends in a digit"
	case hasControl(s) || strings.ContainsAny(s, " \t"):
		return "it has white space or control bytes in it"
	}
	return ""
}

// bridgeError is the kernel's dev_valid_name.
func bridgeError(s string) string {
	switch {
	case s == "" || s == "." || s == "..":
		return "not an interface name"
	case len(s) > MaxIfName:
		return fmt.Sprintf("longer than %d bytes", MaxIfName)
	case strings.ContainsAny(s, "/: \t") || hasControl(s):
		return "an interface name has no \"/\", \":\" or white space in it"
	}
	return ""
}

// isTap reports whether s is tapN.
func isTap(s string) bool {
	digits, ok := strings.CutPrefix(s, "tap")
	if !ok || len(s) > MaxIfName || len(digits) > 1 && digits[0] == '0' {
		return false
	}
	_, err := strconv.ParseUint(digits, 10, 32)
	return err == nil
}

// hasControl reports whether s has a byte that no terminal or log should get.
func hasControl(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] < ' ' || s[i] == 0x7f {
			return true
		}
	}
	return false
}
