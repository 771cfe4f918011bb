package machine

import (
	"os"
	"testing"
)

// A guest that resets again and again is another Machine each time: none leaves
// anything behind.
func TestTwentyResetsByEachRoute(t *testing.T) {
	// Port 0xcf9 is a coalesced one: what is written there happens at the next
	// exit, or a second later.
	exits := []byte{0xe4, 0x80, 0xeb, 0xfc} // in al, 0x80, for ever
	for _, c := range []struct {
		name string
		code []byte
		want Cause
	}{
		// ACPI's reset register is this port, with the same value.
		{"0xcf9", out32(0xcf9, 6), Reset},
		{"0xcf9 in two steps", cat(out32(0xcf9, 2), out32(0xcf9, 6)), Reset},
		{"keyboard controller", out32(0x64, 0xfe), Reset},
		{"port 0x92", out32(0x92, 1), Reset},
		{"triple fault", []byte{0x0f, 0x0b}, TripleFault}, // ud2
	} {
		t.Run(c.name, func(t *testing.T) {
			var first int
			for n := range 20 {
				m, out := newMachine(t, nil)
				put(t, m, cat(out32(0x3f8, 'r'), c.code, exits)...)
				protect(t, m)
				start(t, m)
				end(t, m, c.want)
				if err := m.Close(); err != nil {
					t.Fatal(err)
				}
				if out.String() != "r" {
					t.Fatalf("reset %d: guest printed %q", n, out)
				}
				if n == 0 {
					first = descriptors(t)
				} else if now := descriptors(t); now > first {
					t.Fatalf("reset %d: %d descriptors, %d after the first", n, now, first)
				}
			}
		})
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
