package privsep

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A role's limits are what it asks for, as far as it may have it, and it cannot
// raise them again. They stay this process's, which needs no more.
func TestLimits(t *testing.T) {
	var had, got unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &had); err != nil {
		t.Fatal(err)
	}
	want := min(64<<10, had.Max)
	for _, locked := range []uint64{want, 0, 1 << 40} {
		if err := setLimits(Role{Locked: locked}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &got); err != nil {
			t.Fatal(err)
		}
		if got.Cur != want || got.Max != want {
			t.Errorf("asked for %d, have %+v, want %d", locked, got, want)
		}
	}
}
