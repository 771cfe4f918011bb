package mib

import "time"

// table is what an object's instances are counted by.
type table uint8

const (
	scalars table = iota
	vmTable
	cpuTable
	affinityTable
	storageTable
	networkTable
)

// depth is the number of arcs of an index: the .0 of a scalar, vmIndex, …
func (t table) depth() int {
	switch t {
	case scalars, vmTable:
		return 1
	case affinityTable:
		return 3
	}
	return 2
}

// object is a leaf of the MIB that a manager can read.
type object struct {
	arcs  []uint32 // below the root
	table table
	value func(View, pos) Value
}

// vmMIB is the MIB proper. What is not-accessible is not here (the index columns;
// vmCpuAffinityTable begins with column 3), and neither is vmAffectedVMs, 1.11,
// which only notifications may carry.
var vmMIB = module{root, []object{
	{[]uint32{1, 1, 1}, scalars, func(v View, _ pos) Value { return octets(v.s.host.Software) }},
	{[]uint32{1, 1, 2}, scalars, func(v View, _ pos) Value { return octets(v.s.host.Version) }},
	{[]uint32{1, 1, 3}, scalars, func(v View, _ pos) Value { return objectID(v.s.host.ObjectID) }},
	{[]uint32{1, 1, 4}, scalars, func(v View, _ pos) Value { return ticks(v.now - v.s.host.Start) }},
	{[]uint32{1, 2}, scalars, func(v View, _ pos) Value { return integer(int32(v.s.Len())) }},
	{[]uint32{1, 3}, scalars, func(v View, _ pos) Value { return ticks(v.s.lastChange) }},

	{[]uint32{1, 4, 1, 2}, vmTable, func(_ View, p pos) Value { return octets(p.row.vm.Name) }},
	{[]uint32{1, 4, 1, 3}, vmTable, func(_ View, p pos) Value { return octets(p.row.uuid) }},
	{[]uint32{1, 4, 1, 4}, vmTable, func(_ View, p pos) Value { return octets(p.row.vm.OSType) }},
	{[]uint32{1, 4, 1, 5}, vmTable, func(_ View, p pos) Value { return integer(int32(p.row.vm.Admin)) }},
	{[]uint32{1, 4, 1, 6}, vmTable, func(_ View, p pos) Value { return integer(int32(p.row.vm.Oper)) }},
	{[]uint32{1, 4, 1, 7}, vmTable, func(_ View, p pos) Value { return integer(int32(p.row.vm.AutoStart)) }},
	{[]uint32{1, 4, 1, 8}, vmTable, func(_ View, p pos) Value { return integer(int32(p.row.vm.Persistent)) }},
	{[]uint32{1, 4, 1, 9}, vmTable, vmCPUNumber},  // vmCurCpuNumber
	{[]uint32{1, 4, 1, 10}, vmTable, vmCPUNumber}, // vmMinCpuNumber: vCPUs are not hot-plugged
	{[]uint32{1, 4, 1, 11}, vmTable, vmCPUNumber}, // vmMaxCpuNumber
	{[]uint32{1, 4, 1, 12}, vmTable, func(_ View, p pos) Value { return integer(p.row.unit) }},
	{[]uint32{1, 4, 1, 13}, vmTable, vmCurMem},
	{[]uint32{1, 4, 1, 14}, vmTable, func(View, pos) Value { return integer(-1) }}, // vmMinMem: no bound
	{[]uint32{1, 4, 1, 15}, vmTable, vmMaxMem},
	{[]uint32{1, 4, 1, 16}, vmTable, vmUpTime},
	{[]uint32{1, 4, 1, 17}, vmTable, func(_ View, p pos) Value { return micros(p.row.cpuTime()) }},

	{[]uint32{1, 5, 1, 2}, cpuTable, func(_ View, p pos) Value { return micros(p.row.vcpuTime(p.sub)) }},
	{[]uint32{1, 6, 1, 3}, affinityTable, vmCPUAffinity},

	{[]uint32{1, 7, 1, 3}, storageTable, func(View, pos) Value { return integer(0) }}, // vmStorageParent: the master numbers hrStorageIndex
	{[]uint32{1, 7, 1, 4}, storageTable, func(_ View, p pos) Value { return integer(int32(p.disk().Source)) }},
	{[]uint32{1, 7, 1, 5}, storageTable, func(_ View, p pos) Value { return octets(p.disk().SourceName) }},
	{[]uint32{1, 7, 1, 6}, storageTable, func(_ View, p pos) Value { return octets(p.disk().Path) }},
	{[]uint32{1, 7, 1, 7}, storageTable, func(_ View, p pos) Value { return integer(int32(p.disk().Access)) }},
	{[]uint32{1, 7, 1, 8}, storageTable, func(_ View, p pos) Value { return integer(int32(p.disk().Media)) }},
	{[]uint32{1, 7, 1, 9}, storageTable, func(_ View, p pos) Value { return octets(p.disk().MediaName) }},
	{[]uint32{1, 7, 1, 10}, storageTable, func(_ View, p pos) Value { return integer(p.row.disks[p.sub].unit) }},
	{[]uint32{1, 7, 1, 11}, storageTable, func(_ View, p pos) Value { return integer(p.row.disks[p.sub].defined) }},
	{[]uint32{1, 7, 1, 12}, storageTable, func(_ View, p pos) Value { return integer(p.row.disks[p.sub].allocated) }},
	{[]uint32{1, 7, 1, 13}, storageTable, func(_ View, p pos) Value { return counter64(p.row.disk(p.sub).ReadOps) }},
	{[]uint32{1, 7, 1, 14}, storageTable, func(_ View, p pos) Value { return counter64(p.row.disk(p.sub).WriteOps) }},
	{[]uint32{1, 7, 1, 15}, storageTable, func(_ View, p pos) Value { return counter64(p.row.disk(p.sub).ReadBytes) }},
	{[]uint32{1, 7, 1, 16}, storageTable, func(_ View, p pos) Value { return counter64(p.row.disk(p.sub).WriteBytes) }},
	{[]uint32{1, 7, 1, 17}, storageTable, func(_ View, p pos) Value { return micros(p.row.disk(p.sub).ReadWait) }},
	{[]uint32{1, 7, 1, 18}, storageTable, func(_ View, p pos) Value { return micros(p.row.disk(p.sub).WriteWait) }},

	{[]uint32{1, 8, 1, 2}, networkTable, func(_ View, p pos) Value { return integer(p.row.vm.NICs[p.sub].IfIndex) }},
	{[]uint32{1, 8, 1, 3}, networkTable, func(_ View, p pos) Value { return integer(p.row.vm.NICs[p.sub].Parent) }},
	{[]uint32{1, 8, 1, 4}, networkTable, func(_ View, p pos) Value { return octets(p.row.vm.NICs[p.sub].Model) }},
	{[]uint32{1, 8, 1, 5}, networkTable, func(_ View, p pos) Value { return octets(p.row.macs[p.sub]) }},

	{perVMSwitch, scalars, func(v View, _ pos) Value { return truth(v.s.switches.PerVM) }},
	{bulkSwitch, scalars, func(v View, _ pos) Value { return truth(v.s.switches.Bulk) }},
}}

var (
	perVMSwitch = []uint32{1, 9}  // vmPerVMNotificationsEnabled
	bulkSwitch  = []uint32{1, 10} // vmBulkNotificationsEnabled
)

func (p pos) disk() *Disk { return &p.row.vm.Disks[p.sub] }

func vmCPUNumber(_ View, p pos) Value { return integer(p.row.vm.CPUs) }

// vmCurMem is what the hypervisor has allocated, which is not what is resident.
func vmCurMem(_ View, p pos) Value {
	r := p.row
	if !r.resident() {
		return integer(0)
	}
	return integer(inUnits(r.vm.Memory-min(r.vm.Balloon, r.vm.Memory), r.unit))
}

func vmMaxMem(_ View, p pos) Value { return integer(inUnits(p.row.vm.Memory, p.row.unit)) }

func vmUpTime(v View, p pos) Value {
	if p.row.vm.Admin == AdminShutdown || p.row.vm.Started == 0 {
		return ticks(0)
	}
	return ticks(v.now - p.row.vm.Started)
}

func vmCPUAffinity(v View, p pos) Value {
	const unknown, enable, disable = 0, 1, 2
	masks := p.row.vm.Affinity
	switch {
	case p.sub >= len(masks) || masks[p.sub] == nil:
		return integer(unknown)
	case masks[p.sub].has(v.s.host.PhysCPUs[p.phys]):
		return integer(enable)
	}
	return integer(disable)
}

// ticks is a TimeTicks: hundredths of a second, modulo 2^32.
func ticks(d time.Duration) Value {
	n := uint64(max(d, 0) / (10 * time.Millisecond))
	return Value{Type: TypeTimeTicks, Number: uint64(uint32(n))}
}

// micros is a Counter64 of microseconds. Sums are kept in nanoseconds up to
// here, so that many short times are not lost.
func micros(ns uint64) Value { return counter64(ns / 1000) }
