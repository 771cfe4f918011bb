package mib

import "slices"

// Event is one change of one machine that RFC 7666 has notifications for.
type Event struct {
	VM   *VM
	Left OperState // the state that VM was in before

	// Now is the state it went to, or 0 when its row was deleted.
	Now OperState
}

// notification is the last arc of an event's per-VM notification; the bulk one
// is bulkOffset higher. 0: the MIB has none for that state.
func (e Event) notification() uint32 {
	switch e.Now {
	case OperRunning:
		return 1
	case OperShuttingDown:
		return 2
	case OperShutdown:
		return 3
	case OperPaused:
		return 4
	case OperSuspending:
		return 5
	case OperSuspended:
		return 6
	case OperResuming:
		return 7
	case OperMigrating:
		return 8
	case OperCrashed:
		return 9
	case deleted:
		return 10
	}
	return 0
}

// deleted is the state of a machine that is gone.
const deleted OperState = 0

const bulkOffset = 10

// Compare returns what happened to a machine whose record was old and is now
// vm. Either may be nil: a machine that is new, or gone.
//
// The state diagram of RFC 7666 has no edge into a new row but to preparing, and
// to shutdown from there, and none out of it but from shutdown. A caller that
// takes a shorter way (a machine that is created running, one that is deleted
// while it runs) gets the events of the long one.
func Compare(old, vm *VM) []Event {
	switch {
	case old == nil && vm == nil:
		return nil
	case old == nil:
		return created(vm)
	case vm == nil:
		return gone(old)
	}
	return appendEvent(nil, vm, old.Oper, vm.Oper)
}

func created(vm *VM) []Event {
	switch vm.Oper {
	case OperPreparing, OperUnknown, OperOther:
		return nil
	}
	ev := appendEvent(nil, vm, OperPreparing, OperShutdown)
	return appendEvent(ev, vm, OperShutdown, vm.Oper)
}

func gone(old *VM) []Event {
	left := old.Oper
	var ev []Event
	switch left {
	case OperShutdown, OperCrashed, OperSuspended, OperPreparing:
	default:
		ev = appendEvent(ev, old, left, OperShutdown)
		left = OperShutdown
	}
	return append(ev, Event{VM: old, Left: left, Now: deleted})
}

func appendEvent(ev []Event, vm *VM, left, now OperState) []Event {
	e := Event{VM: vm, Left: left, Now: now}
	if left == now || e.notification() == 0 {
		return ev
	}
	return append(ev, e)
}

// Notification is a notification and its objects, in the MIB's order.
type Notification struct {
	OID     []uint32
	Objects []VarBind
}

// Notification returns the per-VM notification of e.
//
// The instance of each object tells the manager vmIndex. vmOperState has the
// state that was left, in all ten of them: the one that was entered is told by
// which notification it is (RFC 7666, vmRunning and the others).
func (e Event) Notification() Notification {
	uuid := ""
	if e.VM.UUID != [16]byte{} {
		uuid = string(e.VM.UUID[:])
	}
	n := Notification{
		OID: notificationOID(e.notification()),
		Objects: []VarBind{
			{vmColumn(2, e.VM.Index), octets(adminString(e.VM.Name))},
			{vmColumn(3, e.VM.Index), octets(uuid)},
			{vmColumn(6, e.VM.Index), integer(int32(e.Left))},
		},
	}
	if e.Now == deleted {
		n.Objects = append(n.Objects,
			VarBind{vmColumn(8, e.VM.Index), integer(int32(e.VM.Persistent))})
	}
	return n
}

func notificationOID(n uint32) []uint32     { return append(Root(), 0, n) }
func vmColumn(col uint32, i int32) []uint32 { return append(Root(), 1, 4, 1, col, uint32(i)) }

// Limits of a bulk notification. The list is as long as its greatest index
// demands, and a master agent drops what is above 64 KiB without a word.
const (
	maxBulkVMs   = 8000
	MaxBulkIndex = 32 << 13 // greatest vmIndex that a bulk notification can name: 32 KiB of bits
)

// Bulk returns the bulk notifications of events: one for each state entered, in
// the order in which the states were first entered, each split where it would
// name too many machines. A machine that went through two states is in both.
// Machines above MaxBulkIndex cannot be named; their number is left.
func Bulk(events []Event) (out []Notification, left int) {
	var order []uint32
	byKind := make(map[uint32][]int32)
	for _, e := range events {
		kind := e.notification()
		if kind == 0 {
			continue
		}
		if e.VM.Index > MaxBulkIndex || e.VM.Index < 1 {
			left++
			continue
		}
		if byKind[kind] == nil {
			order = append(order, kind)
		}
		byKind[kind] = append(byKind[kind], e.VM.Index)
	}
	for _, kind := range order {
		list := byKind[kind]
		slices.Sort(list)
		for part := range slices.Chunk(slices.Compact(list), maxBulkVMs) {
			out = append(out, Notification{
				OID: notificationOID(kind + bulkOffset),
				Objects: []VarBind{
					{append(Root(), 1, 11, 0), octets(affectedVMs(part))},
				},
			})
		}
	}
	return out, left
}

// affectedVMs is a VirtualMachineList of ascending indexes:
//
//	octet k, bit 0x80 >> b   stands for vmIndex 8k + b + 1
func affectedVMs(sorted []int32) string {
	last := sorted[len(sorted)-1]
	list := make([]byte, (last+7)/8)
	for _, index := range sorted {
		list[(index-1)/8] |= 0x80 >> (uint(index-1) % 8)
	}
	return string(list)
}
