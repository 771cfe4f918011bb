package mib

import "testing"

func TestSetErrors(t *testing.T) {
	perVM, bulk := oid(1, 9, 0), oid(1, 10, 0)
	cases := []struct {
		name  string
		binds []VarBind
		code  uint16
		index int
	}{
		{"one", []VarBind{{perVM, integer(2)}}, 0, 0},
		{"both", []VarBind{{perVM, integer(2)}, {bulk, integer(1)}}, 0, 0},
		{"none", nil, 0, 0},
		{"type", []VarBind{{perVM, octets("1")}}, ErrWrongType, 1},
		{"gauge", []VarBind{{perVM, Value{Type: 66, Number: 1}}}, ErrWrongType, 1},
		{"zero", []VarBind{{perVM, integer(0)}}, ErrWrongValue, 1},
		{"three", []VarBind{{bulk, integer(3)}}, ErrWrongValue, 1},
		{"instance", []VarBind{{oid(1, 9, 1), integer(1)}}, ErrNoCreation, 1},
		{"no instance", []VarBind{{oid(1, 10), integer(1)}}, ErrNoCreation, 1},
		{"longer instance", []VarBind{{oid(1, 9, 0, 0), integer(1)}}, ErrNoCreation, 1},
		{"a column", []VarBind{{oid(1, 4, 1, 5, 1), integer(1)}}, ErrNotWritable, 1},
		{"a scalar", []VarBind{{oid(1, 2, 0), integer(1)}}, ErrNotWritable, 1},
		{"outside", []VarBind{{[]uint32{1, 3, 6}, integer(1)}}, ErrNotWritable, 1},
		{"second is bad", []VarBind{{perVM, integer(2)}, {bulk, integer(7)}}, ErrWrongValue, 2},
	}
	for _, c := range cases {
		s := testStore(t, &fakeClock{})
		before := s.Switches()
		_, err := s.Test(c.binds)
		switch {
		case c.code == 0 && err != nil, c.code != 0 && err == nil:
			t.Errorf("%s: error %v, want code %d", c.name, err, c.code)
		case err != nil && (err.Code != c.code || err.Index != c.index):
			t.Errorf("%s: error %+v, want %d at %d", c.name, err, c.code, c.index)
		}
		if s.Switches() != before {
			t.Errorf("%s: a test has changed something", c.name)
		}
		s.Configure(before, true)
		if _, err := s.Test(c.binds); len(c.binds) > 0 && (err == nil || err.Code != ErrNotWritable) {
			t.Errorf("%s: read-only store answers %v, want notWritable", c.name, err)
		}
	}
}

func TestSetCommitUndo(t *testing.T) {
	s := testStore(t, &fakeClock{}) // per VM true, bulk false
	read := func() [2]int32 {
		v := s.View()
		return [2]int32{v.Get(oid(1, 9, 0)).Int(), v.Get(oid(1, 10, 0)).Int()}
	}
	expect := func(when string, want [2]int32) {
		t.Helper()
		if got := read(); got != want {
			t.Errorf("%s: per VM, bulk: %v, want %v", when, got, want)
		}
	}
	set, err := s.Test([]VarBind{{oid(1, 9, 0), integer(2)}, {oid(1, 10, 0), integer(1)}})
	if err != nil {
		t.Fatal(err)
	}
	expect("tested", [2]int32{1, 2})
	set.Commit()
	set.Commit()
	expect("committed", [2]int32{2, 1})
	set.Undo()
	set.Undo()
	expect("undone", [2]int32{1, 2})
	set.Commit()
	s.ResetSwitches()
	expect("reset", [2]int32{1, 2})
	s.Configure(Switches{Bulk: true}, false)
	expect("configured", [2]int32{2, 1})

	one, err := s.Test([]VarBind{{oid(1, 9, 0), integer(1)}})
	if err != nil {
		t.Fatal(err)
	}
	one.Commit()
	expect("one of them", [2]int32{1, 1})
	one.Undo()
	expect("one undone", [2]int32{2, 1})
}
