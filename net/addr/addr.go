// Package addr computes the addresses of local interfaces, the two ends of the
// link between a guest and its host.
package addr

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// MaxIndex is the last interface of a VM that has addresses of its own.
const MaxIndex = 126

// Default4 is the prefix that vmd(8) takes addresses from when vm.conf names
// none (RFC 6598).
var Default4 = netip.MustParsePrefix("100.64.0.0/10")

// ErrOutside says that a prefix has no address left for so large an id or index.
var ErrOutside = errors.New("does not fit into the prefix")

// Local4 returns the addresses of interface index, from 0, of the VM with the
// given id:
//
//	 prefix      id        (index+1)*2, +1 for the guest
//	|-----------|---------|--------|
//	31                    8        0
//
// Both are in one /31 (RFC 3021). Where vmd(8) lets an id run into the prefix,
// so that two VMs may get one address, this is an ErrOutside.
func Local4(prefix netip.Prefix, id uint32, index int) (host, guest netip.Prefix, err error) {
	if !prefix.Addr().Is4() {
		return host, guest, fmt.Errorf("local prefix %v: not of IPv4", prefix)
	}
	low := uint64(id)<<8 | uint64(index+1)*2
	if index < 0 || index > MaxIndex || low>>(32-prefix.Bits()) != 0 {
		return host, guest, fmt.Errorf("address of interface %d of VM %d in %v: %w", index, id, prefix, ErrOutside)
	}
	base := prefix.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(base[:]) | uint32(low)
	return link4(n), link4(n + 1), nil
}

func link4(n uint32) netip.Prefix {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.PrefixFrom(netip.AddrFrom4(b), 31)
}

// Local6 returns the addresses of a local interface whose guest has the IPv4
// address guest4: the prefix in 64 bits, guest4 in 32, and 1 for the host or 2
// for the guest.
func Local6(prefix netip.Prefix, guest4 netip.Addr) (host, guest netip.Prefix, err error) {
	if !prefix.Addr().Is6() || prefix.Addr().Is4In6() {
		return host, guest, fmt.Errorf("local inet6 prefix %v: not of IPv6", prefix)
	}
	if prefix.Bits() > 64 {
		return host, guest, fmt.Errorf("local inet6 prefix %v: longer than 64 bits", prefix)
	}
	if !guest4.Is4() {
		return host, guest, fmt.Errorf("local inet6 address: %v is no IPv4 address to make it of", guest4)
	}
	b := prefix.Masked().Addr().As16()
	g := guest4.As4()
	copy(b[8:], g[:])
	b[15] = 1
	host = netip.PrefixFrom(netip.AddrFrom16(b), 96)
	b[15] = 2
	return host, netip.PrefixFrom(netip.AddrFrom16(b), 96), nil
}

// Unique6 returns the prefix of unique local addresses (RFC 4193) with the
// given bits, which should be random.
func Unique6(random [7]byte) netip.Prefix {
	b := [16]byte{0: 0xfd}
	copy(b[1:8], random[:])
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}
