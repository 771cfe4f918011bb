package sev

import (
	"fmt"
	"strings"
)

// Policy is what a guest's owner wants the firmware to insist on as long as the
// guest lives (SEV API 55766, 3).
//
//	 0 NODBG   the host may not read or write the guest's memory in plain
//	 1 NOKS    the guest shares its key with no other
//	 2 ES      the guest is SEV-ES
//	 3 NOSEND  the guest does not move to another platform
//	 4 DOMAIN  if it moves, then to one of the same domain
//	 5 SEV     if it moves, then to one with SEV
//	15:6       zero
//	23:16      least major API version of the firmware
//	31:24      least minor
type Policy uint32

// Bits of a Policy.
const (
	SEV_POLICY_NODBG  Policy = 1 << 0
	SEV_POLICY_NOKS   Policy = 1 << 1
	SEV_POLICY_ES     Policy = 1 << 2
	SEV_POLICY_NOSEND Policy = 1 << 3
	SEV_POLICY_DOMAIN Policy = 1 << 4
	SEV_POLICY_SEV    Policy = 1 << 5

	policyZero Policy = 0xffc0
)

var policyNames = []string{"nodbg", "noks", "es", "nosend", "domain", "sev"}

// DefaultPolicy is the strictest for a guest of kind k, and that of OpenBSD's
// vmd(8).
func DefaultPolicy(k Kind) Policy {
	p := SEV_POLICY_NODBG | SEV_POLICY_NOKS | SEV_POLICY_NOSEND | SEV_POLICY_DOMAIN | SEV_POLICY_SEV
	if k == ES {
		p |= SEV_POLICY_ES
	}
	return p
}

// API is a version of the firmware's interface.
type API struct{ Major, Minor uint8 }

func (a API) String() string { return fmt.Sprintf("%d.%d", a.Major, a.Minor) }

func (a API) less(b API) bool {
	return a.Major < b.Major || a.Major == b.Major && a.Minor < b.Minor
}

// MinAPI is the least version of the firmware's interface that p asks for.
func (p Policy) MinAPI() API { return API{uint8(p >> 16), uint8(p >> 24)} }

// WithMinAPI is p asking for version a at least.
func (p Policy) WithMinAPI(a API) Policy {
	return p&0xffff | Policy(a.Major)<<16 | Policy(a.Minor)<<24
}

// String lists what p asks for: "nodbg,noks,api=1.49".
func (p Policy) String() string {
	var words []string
	for i, n := range policyNames {
		if p>>i&1 != 0 {
			words = append(words, n)
		}
	}
	if z := p & policyZero; z != 0 {
		words = append(words, fmt.Sprintf("%#x", uint32(z)))
	}
	if a := p.MinAPI(); a != (API{}) {
		words = append(words, "api="+a.String())
	}
	if words == nil {
		return "0"
	}
	return strings.Join(words, ",")
}

func (p Policy) checkZero() error {
	if z := p & policyZero; z != 0 {
		return fmt.Errorf("SEV policy %#x: bits %#x must be zero", uint32(p), uint32(z))
	}
	return nil
}

// Check says what keeps a guest of kind k from having policy p.
func (p Policy) Check(k Kind) error {
	switch es := p&SEV_POLICY_ES != 0; {
	case p.checkZero() != nil:
		return p.checkZero()
	case k != SEV && k != ES:
		return fmt.Errorf("SEV policy %v: the guest is not to be encrypted", p)
	case es && k != ES:
		return fmt.Errorf("SEV policy %v asks for SEV-ES, and the guest is to have SEV", p)
	case !es && k == ES:
		return fmt.Errorf("SEV policy %v lacks es, and the guest is to have SEV-ES", p)
	}
	return nil
}
