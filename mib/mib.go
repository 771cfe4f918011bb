// Package mib is VM-MIB (RFC 7666) as data: records of virtual machines go in,
// and come out as a sorted, immutable view of object identifiers and values.
// It opens no socket, starts no goroutine and knows nothing of who runs the
// machines.
//
// A Store takes records and hands out Snapshots. A Snapshot with a moment in
// time is a View, which answers Get and Next by search: the instances of the
// tables are never written out, so a table of a quarter of a million affinity
// rows costs nothing until somebody reads it, and then O(log n) for each row.
// Counters are read at that time, from wherever the record's Counters take them.
//
// Compare turns two records of one machine into the notifications between them.
package mib

// Value types are the SMIv2 tags (RFC 2578, RFC 3416), which AgentX uses as
// they are (RFC 2741, 5.4).
const (
	TypeInteger        uint16 = 2
	TypeOctetString    uint16 = 4
	TypeNull           uint16 = 5
	TypeOID            uint16 = 6
	TypeTimeTicks      uint16 = 67
	TypeCounter64      uint16 = 70
	TypeNoSuchObject   uint16 = 128
	TypeNoSuchInstance uint16 = 129
	TypeEndOfMIBView   uint16 = 130
)

// Value is the value of one variable. Its fields are of plain types, so that a
// protocol's own value type with the same fields converts to and from it.
type Value struct {
	Type   uint16
	Number uint64   // Integer (as its 32 bits), TimeTicks, Counter64
	Text   string   // OctetString
	OID    []uint32 // ObjectIdentifier; not to be written to
}

// Int returns the value of an Integer.
func (v Value) Int() int32 { return int32(uint32(v.Number)) }

// VarBind is a named value.
type VarBind struct {
	Name  []uint32
	Value Value
}

// Root returns vmMIB, 1.3.6.1.2.1.236, the subtree that holds everything here.
func Root() []uint32 { return append([]uint32(nil), root...) }

var root = []uint32{1, 3, 6, 1, 2, 1, 236}

// VMInfoRoot returns the subtree of vmwVmTable (VMWARE-VMINFO-MIB), which is
// served when Host.VMInfo is set.
func VMInfoRoot() []uint32 { return append([]uint32(nil), vmInfo.root...) }

// module is a subtree and what can be read in it.
type module struct {
	root    []uint32
	objects []object // in the order of their identifiers
}

// modules are in the order of their roots.
func (s *Snapshot) modules() []*module {
	if s.host.VMInfo {
		return withVMInfo
	}
	return withoutVMInfo
}

var (
	withoutVMInfo = []*module{&vmMIB}
	withVMInfo    = []*module{&vmMIB, &vmInfo}
)

func integer(n int32) Value      { return Value{Type: TypeInteger, Number: uint64(uint32(n))} }
func octets(s string) Value      { return Value{Type: TypeOctetString, Text: s} }
func counter64(n uint64) Value   { return Value{Type: TypeCounter64, Number: n} }
func objectID(o []uint32) Value  { return Value{Type: TypeOID, OID: o} }
func exception(tag uint16) Value { return Value{Type: tag} }

// truth is a TruthValue (SNMPv2-TC): false is 2, never 0.
func truth(b bool) Value {
	if b {
		return integer(1)
	}
	return integer(2)
}
