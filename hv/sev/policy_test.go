package sev

import (
	"testing"
)

func TestPolicy(t *testing.T) {
	for p, want := range map[Policy]string{
		0x3b:       "nodbg,noks,nosend,domain,sev",
		0x3f:       "nodbg,noks,es,nosend,domain,sev",
		1:          "nodbg",
		5:          "nodbg,es",
		0x41:       "nodbg,0x40",
		0x31010002: "noks,api=1.49",
		0xff0000:   "api=255.0",
		0:          "0",
	} {
		if got := p.String(); got != want {
			t.Errorf("policy %#x: %q, want %q", uint32(p), got, want)
		}
	}
	if p := SEV_POLICY_NOKS.WithMinAPI(API{1, 49}); p != 0x31010002 || p.MinAPI() != (API{1, 49}) {
		t.Errorf("noks of 1.49 at least is %#x", uint32(p))
	}
	if err := Policy(0x40).Check(SEV); err == nil {
		t.Error("a bit that must be zero is taken")
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
