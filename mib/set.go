package mib

import (
	"fmt"
	"slices"
)

// Errors of a SET (RFC 3416, 3), as AgentX carries them.
const (
	ErrWrongType   uint16 = 7
	ErrWrongValue  uint16 = 10
	ErrNoCreation  uint16 = 11
	ErrNotWritable uint16 = 17
)

// SetError says which variable of a SET, counted from 1, cannot be set and why.
type SetError struct {
	Code  uint16
	Index int
}

func (e *SetError) Error() string { return fmt.Sprintf("set variable %d: error %d", e.Index, e.Code) }

// Set is a SET that was found good. It changes all of its variables at once.
// Commit and Undo cannot fail; leaving a Set alone drops it.
type Set struct {
	store             *Store
	perVM, bulk       *bool // nil: not in this SET
	oldPerVM, oldBulk bool
	committed         bool
}

// Test checks a SET of several variables without changing any of them. Only the
// two notification switches can be set.
func (s *Store) Test(binds []VarBind) (*Set, *SetError) {
	s.mu.Lock()
	readOnly := s.readOnly
	s.mu.Unlock()
	t := &Set{store: s}
	for i := range binds {
		if code := t.add(&binds[i], readOnly); code != 0 {
			return nil, &SetError{Code: code, Index: i + 1}
		}
	}
	return t, nil
}

func (t *Set) add(b *VarBind, readOnly bool) uint16 {
	if !hasPrefix(b.Name, root) || readOnly {
		return ErrNotWritable
	}
	rest := b.Name[len(root):]
	var into **bool
	var object []uint32
	switch {
	case hasPrefix(rest, perVMSwitch):
		into, object = &t.perVM, perVMSwitch
	case hasPrefix(rest, bulkSwitch):
		into, object = &t.bulk, bulkSwitch
	default:
		return ErrNotWritable
	}
	switch {
	case !slices.Equal(rest[len(object):], []uint32{0}):
		return ErrNoCreation
	case b.Value.Type != TypeInteger:
		return ErrWrongType
	case b.Value.Int() != 1 && b.Value.Int() != 2:
		return ErrWrongValue
	}
	on := b.Value.Int() == 1
	*into = &on
	return 0
}

// Commit makes the change.
func (t *Set) Commit() {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.committed {
		return
	}
	w := &s.next.switches
	t.oldPerVM, t.oldBulk = w.PerVM, w.Bulk
	if t.perVM != nil {
		w.PerVM = *t.perVM
	}
	if t.bulk != nil {
		w.Bulk = *t.bulk
	}
	t.committed = true
	s.taken = nil
}

// Undo takes a committed change back.
func (t *Set) Undo() {
	s := t.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if !t.committed {
		return
	}
	w := &s.next.switches
	if t.perVM != nil {
		w.PerVM = t.oldPerVM
	}
	if t.bulk != nil {
		w.Bulk = t.oldBulk
	}
	t.committed = false
	s.taken = nil
}
