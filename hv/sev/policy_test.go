package sev

import (
	"testing"
)

func TestPolicy(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want Policy
		text string
	}{
		{"0x3b", 0x3b, "nodbg,noks,nosend,domain,sev"},
		{"63", 0x3f, "nodbg,noks,es,nosend,domain,sev"},
		{"nodbg", 1, "nodbg"},
		{"es,nodbg", 5, "nodbg,es"},
		{"noks,api=1.49", 0x31010002, "noks,api=1.49"},
		{"api=255.0", 0xff0000, "api=255.0"},
		{"0", 0, "0"},
	} {
		p, err := ParsePolicy(tt.in)
		if err != nil || p != tt.want || p.String() != tt.text {
			t.Errorf("%q: policy %#x %q, error %v; want %#x %q", tt.in, uint32(p), p, err, uint32(tt.want), tt.text)
		}
	}
	for _, in := range []string{"", "nodbg,", "nodbg,nodbg", "api=1", "api=1.256", "api=256.1", "api=1.2,api=1.2",
		"dbg", "NODBG", "0x40", "0x8000", "nodbg=1", "0x100000000", "-1", "api"} {
		if p, err := ParsePolicy(in); err == nil {
			t.Errorf("%q is taken as %v", in, p)
		}
	}
}

func TestDefaultPolicy(t *testing.T) {
	for k, want := range map[Kind]Policy{SEV: 0x3b, ES: 0x3f} {
		p := DefaultPolicy(k)
		if p != want || p.Check(k) != nil {
			t.Errorf("%v: %#x, %v; want %#x", k, uint32(p), p.Check(k), uint32(want))
		}
	}
	if err := DefaultPolicy(SEV).Check(None); err == nil {
		t.Error("a guest without encryption has a policy")
	}
}

func FuzzParsePolicy(f *testing.F) {
	for _, s := range []string{"nodbg,noks,es,nosend,domain,sev", "0x3f", "api=1.49", ",,", "api=.", "9999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePolicy(s)
		if err != nil {
			return
		}
		if again, err := ParsePolicy(p.String()); err != nil || again != p {
			t.Errorf("%q is %v, which is %v, %v", s, p, again, err)
		}
	})
}

func TestCPU(t *testing.T) {
	const layout = 0xabc0_0000 | 5<<6 | 51
	c := CPU{Features: 1<<0 | 1<<1 | 1<<3 | 1<<4 | 1<<10, Layout: layout}
	if c.CBit() != 51 || c.Reduction() != 5 {
		t.Errorf("C-bit %d, reduction %d", c.CBit(), c.Reduction())
	}
	for k, want := range map[Kind][2]uint32{None: {}, SEV: {2, 5<<6 | 51}, ES: {10, 5<<6 | 51}} {
		if a, b := c.Guest(k); [2]uint32{a, b} != want {
			t.Errorf("%v: the guest sees %#x %#x, want %#x", k, a, b, want)
		}
	}
	for features, want := range map[uint32][3]bool{0: {true}, 1: {true}, 2: {true, true}, 8: {true}, 10: {true, true, true}} {
		c := CPU{Features: features}
		for k, w := range want {
			if got := c.Has(Kind(k)); got != w {
				t.Errorf("EAX %#x has %v: %v", features, Kind(k), got)
			}
		}
	}
}
