package kvm

import (
	"fmt"
	"slices"
	"testing"
)

// writes notes what is written to ports.
type writes []string

func (w *writes) Write(port uint64, data []byte) { *w = append(*w, fmt.Sprintf("%#x % x", port, data)) }

// coalescing makes a guest that runs code, with two ranges of ports coalesced.
func coalescing(t *testing.T, code ...byte) (*guest, *Coalesced) {
	g, c := newGuest(t, code...), &Coalesced{}
	if g.vm.Check(KVM_CAP_COALESCED_PIO) == 0 {
		t.Skip("KVM without KVM_CAP_COALESCED_PIO")
	}
	for port, size := range map[uint16]uint32{0xcf8: 4, 0x80: 1} {
		if err := g.vm.CoalescePorts(c, g.cpu, port, size); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(c.Close)
	return g, c
}

func TestCoalescedWritesComeBeforeTheNextExit(t *testing.T) {
	g, c := coalescing(t,
		0xe6, 0x80, // out 0x80, al
		0xba, 0xf8, 0x0c, // mov dx, 0xcf8
		0x66, 0xb8, 0x78, 0x56, 0x34, 0x12, // mov eax, 0x12345678
		0x66, 0xef, // out dx, eax
		0xb2, 0xf9, // mov dl, 0xf9
		0xb0, 0x06, // mov al, 6
		0xee,       // out dx, al
		0xb2, 0xfc, // mov dl, 0xfc
		0xed, // in ax, dx
	)
	var w writes
	c.Drain(&w)
	if len(w) != 0 {
		t.Errorf("before the guest ran: %q", w)
	}
	g.want(t, KVM_EXIT_IO)
	if x := g.cpu.IO(); x.Out || x.Port != 0xcfc {
		t.Fatalf("came out for %+v", x)
	}
	c.Drain(&w)
	if want := []string{"0x80 00", "0xcf8 78 56 34 12", "0xcf9 06"}; !slices.Equal(w, want) {
		t.Errorf("got %q, want %q", w, want)
	}
	c.Drain(&w)
	if len(w) != 3 {
		t.Errorf("carried out twice: %q", w)
	}
}

// A ring that is full makes the guest come out as if there were none.
func TestCoalescedRingFull(t *testing.T) {
	g, c := coalescing(t,
		0xb9, 0x58, 0x02, // mov cx, 600
		0x88, 0xc8, // mov al, cl
		0xe6, 0x80, // out 0x80, al
		0xe2, 0xfa, // loop -6
		0xe4, 0x70, // in al, 0x70
	)
	var w writes
	exits := 0
	for {
		g.want(t, KVM_EXIT_IO)
		c.Drain(&w)
		x := g.cpu.IO()
		if !x.Out {
			break
		}
		w.Write(uint64(x.Port), x.Data)
		exits++
	}
	if exits == 0 || exits > 10 {
		t.Errorf("%d exits for 600 writes", exits)
	}
	for i, s := range w {
		if want := fmt.Sprintf("0x80 %02x", byte(600-i)); s != want {
			t.Fatalf("write %d: %q, want %q", i, s, want)
		}
	}
	if len(w) != 600 {
		t.Errorf("%d writes, want 600", len(w))
	}
}

func TestCoalescedClosed(t *testing.T) {
	g, c := coalescing(t, 0xe6, 0x80, 0xe4, 0x70)
	g.want(t, KVM_EXIT_IO)
	c.Close()
	var w writes
	c.Drain(&w)
	if len(w) != 0 {
		t.Errorf("after Close: %q", w)
	}
}

func TestDrainDoesNotAllocate(t *testing.T) {
	g, c := coalescing(t, 0xe6, 0x80, 0xe4, 0x70, 0xeb, 0xfa)
	var w nowhere
	n := testing.AllocsPerRun(100, func() {
		for {
			if r, _ := g.cpu.Run(); r != 0 {
				break
			}
		}
		c.Drain(&w)
	})
	if n != 0 || w < 100 {
		t.Errorf("%v allocations a drain, %d writes", n, w)
	}
}

type nowhere int

func (n *nowhere) Write(uint64, []byte) { *n++ }

func TestClockGoesOnFromWhereItIsSet(t *testing.T) {
	g := newGuest(t)
	const day = 24 * 3600 * 1e9
	if err := g.vm.SetClock(day); err != nil {
		t.Fatal(err)
	}
	ns, err := g.vm.Clock()
	if err != nil || ns < day || ns > day+60e9 {
		t.Errorf("set to %d, now %d, %v", uint64(day), ns, err)
	}
}
