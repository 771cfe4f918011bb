package vm

import (
	"encoding/hex"
	"errors"

	"vmd/hv/machine"
	"vmd/hv/sev"
	"vmd/internal/vmop"
)

// encrypt is what the machine is to be told of SEV. The descriptor stays ours,
// and is closed once the guest is loaded.
func (v *vm) encrypt() (machine.SEV, error) {
	if !v.spec.SEV {
		return machine.SEV{}, nil
	}
	f := v.files["sev"]
	if f == nil {
		return machine.SEV{}, &coded{vmop.ErrSEV, errors.New(`descriptor "sev": not given`)}
	}
	s := machine.SEV{Kind: sev.SEV, FD: int(f.Fd())}
	if v.spec.SEVES {
		s.Kind = sev.ES
	}
	return s, nil
}

// sevCode is the code for err: that of SEV if it comes from there.
func sevCode(err error, other vmop.Code) vmop.Code {
	var s *machine.SEVError
	if errors.As(err, &s) {
		return vmop.ErrSEV
	}
	return other
}

// encryption is what is told of an encrypted guest; nil for another.
func (v *vm) encryption() *vmop.Encryption {
	l, ok := v.machine.Launch()
	if !ok {
		return nil
	}
	return &vmop.Encryption{ES: l.Kind == sev.ES, Digest: l.Digest}
}

// logLaunch notes what a guest's owner needs to verify its launch.
func (v *vm) logLaunch() {
	l, ok := v.machine.Launch()
	if !ok {
		return
	}
	v.Log.Info().Stringer("kind", l.Kind).Stringer("policy", l.Policy).
		Str("digest", hex.EncodeToString(l.Digest[:])).
		Str("measurement", hex.EncodeToString(l.Measurement.HMAC[:])).
		Str("nonce", hex.EncodeToString(l.Measurement.Nonce[:])).
		Msg("guest launched with encrypted memory")
}
