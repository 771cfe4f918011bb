package fleet

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// instance is one value of vmTable: its column, and vmIndex.
type instance struct {
	column int
	index  uint32
}

func (i instance) before(j instance) bool {
	return cmp.Or(cmp.Compare(i.column, j.column), cmp.Compare(i.index, j.index)) < 0
}

// parseName reads the name of a value of vmTable; ok is false for any other.
func parseName(name string) (i instance, ok bool) {
	rest, ok := strings.CutPrefix(name, vmEntry+".")
	if !ok {
		return i, false
	}
	column, index, ok := strings.Cut(rest, ".")
	if !ok {
		return i, false
	}
	c, err := strconv.ParseUint(column, 10, 31)
	if err != nil {
		return i, false
	}
	n, err := strconv.ParseUint(index, 10, 31)
	return instance{int(c), uint32(n)}, err == nil && n > 0
}

// rows are the rows of a table while it is being read.
type rows struct {
	byIndex map[uint32]*row
}

type row struct {
	vm             VM
	unit           uint64
	current, limit int64 // in units
}

// add takes a value, whatever its type: one of the wrong type is not known.
func (r *rows) add(i instance, value any) {
	if r.byIndex == nil {
		r.byIndex = make(map[uint32]*row)
	}
	w := r.byIndex[i.index]
	if w == nil {
		w = &row{vm: VM{ID: i.index}}
		r.byIndex[i.index] = w
	}
	switch v := &w.vm; i.column { // RFC 7666, vmEntry
	case 2:
		v.Name = clean(value)
	case 3:
		if b, ok := value.([]byte); ok && len(b) == len(v.UUID) {
			v.UUID = [16]byte(b)
		}
	case 5:
		v.Admin = int32(number(value, 0, 4))
	case 6:
		v.Oper = int32(number(value, 0, int64(len(states)-1)))
	case 7:
		v.Autostart = number(value, 0, 3) == 2
	case 8:
		v.Persistent = number(value, 0, 3) == 2
	case 9:
		v.CPUs = int(number(value, 0, 1<<31-1))
	case 12:
		w.unit = uint64(number(value, 0, 1<<31-1))
	case 13:
		w.current = number(value, 0, 1<<31-1)
	case 15:
		w.limit = number(value, 0, 1<<31-1)
	case 16:
		v.Uptime = time.Duration(number(value, 0, 1<<32-1)) * 10 * time.Millisecond
	case 17:
		v.CPUTime = time.Duration(number(value, 0, 1<<63/1000-1)) * time.Microsecond
	}
}

// vms are the rows of machines, in order of their numbers. Without a name a row
// is one that was deleted, or made, during the walk.
func (r *rows) vms() []VM {
	vms := make([]VM, 0, len(r.byIndex))
	for _, index := range slices.Sorted(maps.Keys(r.byIndex)) {
		w := r.byIndex[index]
		if w.vm.Name == "" || w.vm.Oper == 0 {
			continue
		}
		w.vm.Memory, w.vm.Allocated = uint64(w.limit)*w.unit, uint64(w.current)*w.unit
		vms = append(vms, w.vm)
	}
	return vms
}

// number is value if it is from lo to hi, and 0 otherwise.
func number(value any, lo, hi int64) int64 {
	var n int64
	switch v := value.(type) {
	case int:
		n = int64(v)
	case uint:
		n = int64(min(uint64(v), 1<<63-1))
	case uint32:
		n = int64(v)
	case uint64:
		n = int64(min(v, 1<<63-1))
	}
	if n < lo || n > hi {
		return 0
	}
	return n
}

// maxName is SnmpAdminString's, in octets.
const maxName = 255

// clean makes a name fit for a terminal and for a table.
func clean(value any) string {
	b, ok := value.([]byte)
	if !ok {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(string(b[:min(len(b), maxName)]), "?"))
}
