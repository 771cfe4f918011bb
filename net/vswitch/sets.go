package vswitch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// Groups of interfaces, for an administrator's rules: a table of nf_tables with
// a set of interface names for each group (vm.conf(5), group). A set is seen
// only by rules of its own table, so those are written into it as well.
//
// vmd makes the table and the sets when it needs them, and takes no offence at
// those that a ruleset has made before. All sets of interface names in the table
// are vmd's: what is not the name of a tap is removed.
const groupTable = "vmd"

// ifnameType is nft's number for the type ifname (nftables, datatype.h,
// TYPE_IFNAME); the kernel only keeps it.
const ifnameType = 41

// SetGroups puts a tap into the sets of groups and takes it out of all others.
// Where the kernel has no nf_tables there are no sets, which is an error.
func (c *Conn) SetGroups(tap string, groups []string) error {
	n, err := c.netfilter()
	if err != nil {
		return err
	}
	in, err := n.groupsOf(tap)
	if err != nil {
		return fmt.Errorf("groups of %s: %w", tap, err)
	}
	for _, s := range in {
		if !slices.Contains(groups, s) {
			if err := n.remove(s, tap); err != nil {
				return fmt.Errorf("take %s out of group %s: %w", tap, s, err)
			}
		}
	}
	// A change makes the kernel wait for all processors: none without need.
	msgs := []nftMsg{{newTable, unix.NLM_F_CREATE, attrString(nil, tableName, groupTable)}}
	for i, g := range groups {
		if !slices.Contains(in, g) {
			msgs = append(msgs, setMsg(g, uint32(i+1)), elemMsg(newSetElem, unix.NLM_F_CREATE, g, tap))
		}
	}
	if len(msgs) == 1 {
		return nil
	}
	if err := n.batch(msgs...); err != nil {
		return fmt.Errorf("put %s into groups %q: %w", tap, groups, err)
	}
	return nil
}

// groupsOf are the sets that have a name in them.
func (n *nft) groupsOf(name string) ([]string, error) {
	sets, err := n.sets()
	if err != nil {
		return nil, err
	}
	var in []string
	for _, s := range sets {
		names, err := n.elements(s)
		if err != nil {
			return nil, err
		}
		if slices.Contains(names, name) {
			in = append(in, s)
		}
	}
	return in, nil
}

// Left takes a tap that is gone out of all groups, unless there is one of its
// name again.
func (c *Conn) Left(tap string) error {
	if _, err := c.tap(tap); err == nil {
		return nil
	}
	return c.SetGroups(tap, nil)
}

// PurgeGroups takes out of all groups what is no tap, or not any more.
func (c *Conn) PurgeGroups() error {
	n, err := c.netfilter()
	if err != nil {
		return err
	}
	sets, err := n.sets()
	if err != nil {
		return fmt.Errorf("purge groups: %w", err)
	}
	for _, s := range sets {
		names, err := n.elements(s)
		if err != nil {
			return fmt.Errorf("purge group %s: %w", s, err)
		}
		for _, name := range names {
			if _, err := c.tap(name); err == nil {
				continue
			}
			if err := n.remove(s, name); err != nil {
				return fmt.Errorf("take %s out of group %s: %w", name, s, err)
			}
		}
	}
	return nil
}

// netfilter is the socket, or why there is none.
func (c *Conn) netfilter() (*nft, error) {
	if c.nft == nil {
		return nil, c.noNFT
	}
	return c.nft, nil
}

// setMsg makes a set of interface names, unless it is there.
func setMsg(name string, id uint32) nftMsg {
	b := attrString(nil, setTable, groupTable)
	b = attrString(b, setName, name)
	b = attrUint32(b, setFlags, 0)
	b = attrUint32(b, setKeyType, ifnameType)
	b = attrUint32(b, setKeyLen, unix.IFNAMSIZ)
	b = attrUint32(b, setID, id)
	return nftMsg{newSet, unix.NLM_F_CREATE, attr(b, setUserData, keyInHostOrder())}
}

// keyInHostOrder is what nft notes about a set for itself, in the kernel's
// keeping: that a key is a string as it is, or it shows none (libnftnl,
// udata.h, NFTNL_UDATA_SET_KEYBYTEORDER; nftables, datatype.h,
// BYTEORDER_HOST_ENDIAN).
func keyInHostOrder() []byte { return binary.NativeEndian.AppendUint32([]byte{0, 4}, 1) }

// elemMsg adds an element to a set, or removes it.
func elemMsg(typ, flags uint16, set, name string) nftMsg {
	key := make([]byte, unix.IFNAMSIZ)
	copy(key, name)
	elem := attr(nil, elemKey|nested, attr(nil, dataValue, key))
	b := attrString(nil, elemTable, groupTable)
	b = attrString(b, elemSet, set)
	return nftMsg{typ, flags, attr(b, elemList|nested, attr(nil, listElement|nested, elem))}
}

// remove takes an element out of a set. It need not be there.
func (n *nft) remove(set, name string) error {
	err := n.batch(elemMsg(delSetElem, 0, set, name))
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// sets are the names of the table's sets of interface names. Maps, and sets of
// intervals or that cannot be changed, have flags and are not ours.
func (n *nft) sets() ([]string, error) {
	var names []string
	err := n.dump(nftMsg{typ: getSet, attrs: attrString(nil, setTable, groupTable)}, func(b []byte) {
		var table, name string
		var flags, typ uint32
		for a, v := range attrs(b) {
			switch {
			case a == setTable:
				table = text(v)
			case a == setName:
				name = text(v)
			case a == setFlags && len(v) == 4:
				flags = binary.BigEndian.Uint32(v)
			case a == setKeyType && len(v) == 4:
				typ = binary.BigEndian.Uint32(v)
			}
		}
		if table == groupTable && flags == 0 && typ == ifnameType {
			names = append(names, name)
		}
	})
	if errors.Is(err, unix.ENOENT) { // there is no table yet
		err = nil
	}
	return names, err
}

// elements are the names in a set.
func (n *nft) elements(set string) ([]string, error) {
	var names []string
	b := attrString(nil, elemTable, groupTable)
	err := n.dump(nftMsg{typ: getSetElem, attrs: attrString(b, elemSet, set)}, func(b []byte) {
		names = append(names, elementNames(b)...)
	})
	if errors.Is(err, unix.ENOENT) {
		err = nil
	}
	return names, err
}

// elementNames are the keys in the attributes of a NFT_MSG_NEWSETELEM.
func elementNames(b []byte) (names []string) {
	for a, list := range attrs(b) {
		if a != elemList {
			continue
		}
		for _, elem := range attrs(list) {
			for a, key := range attrs(elem) {
				if a != elemKey {
					continue
				}
				for a, v := range attrs(key) {
					if a == dataValue {
						names = append(names, text(v))
					}
				}
			}
		}
	}
	return names
}
