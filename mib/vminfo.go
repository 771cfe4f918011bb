package mib

import (
	"math"

	"vmd/internal/notation"
)

// vmInfo is vmwVmTable of VMWARE-VMINFO-MIB. Managers look for it on every Linux
// host, because VMware's own agent serves it there, and show what they find
// without knowing RFC 7666. The states are strings. vmwVmIdx (1) is not-accessible;
// vmwVmVMID (7) is obsolete, but old releases of LibreNMS look for machines there.
var vmInfo = module{[]uint32{1, 3, 6, 1, 4, 1, 6876, 2, 1, 1}, []object{
	{[]uint32{2}, vmTable, func(_ View, p pos) Value { return octets(p.row.vm.Name) }},
	{[]uint32{3}, vmTable, func(View, pos) Value { return octets("") }}, // vmwVmConfigFile: of all machines, not of one
	{[]uint32{4}, vmTable, func(_ View, p pos) Value { return octets(p.row.vm.OSType) }},
	{[]uint32{5}, vmTable, func(_ View, p pos) Value { return integer(mebibytes(p.row.vm.Memory)) }},
	{[]uint32{6}, vmTable, func(_ View, p pos) Value { return octets(powerState(p.row)) }},
	{[]uint32{7}, vmTable, func(_ View, p pos) Value { return integer(p.row.vm.Index) }},
	{[]uint32{8}, vmTable, func(_ View, p pos) Value { return octets(guestState(p.row)) }},
	{[]uint32{9}, vmTable, vmCPUNumber},
	{[]uint32{10}, vmTable, func(_ View, p pos) Value { return octets(textUUID(p.row.vm.UUID)) }},
}}

// powerState is vmwVmState.
func powerState(r *row) string {
	switch r.vm.Oper {
	case OperRunning, OperShuttingDown, OperMigrating, OperResuming:
		return "powered on"
	case OperPaused, OperSuspending, OperSuspended:
		return "suspended"
	case OperUnknown, OperOther:
		return "unknown"
	}
	return "powered off"
}

// guestState is vmwVmGuestState.
func guestState(r *row) string {
	switch r.vm.Oper {
	case OperRunning, OperMigrating:
		return "running"
	case OperShuttingDown:
		return "shuttingDown"
	case OperUnknown, OperOther:
		return "unknown"
	}
	return "notRunning"
}

func mebibytes(bytes uint64) int32 { return int32(min(bytes/miB, math.MaxInt32)) }

// textUUID is the text form of a UUID, "" for one that is not known.
func textUUID(u [16]byte) string {
	if u == [16]byte{} {
		return ""
	}
	return notation.UUID(u)
}
