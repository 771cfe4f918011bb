package vm

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"vmd/hv/machine"
	"vmd/hv/sev"
	"vmd/internal/vmop"
)

// A guest that is to be encrypted and has no /dev/sev is refused, not run in
// plain.
func TestEncrypt(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tt := range []struct {
		name  string
		spec  vmop.VMStartRequest
		files files
		want  sev.Kind
		code  vmop.Code
	}{
		{"plain", vmop.VMStartRequest{}, files{"sev": null}, sev.None, vmop.OK},
		{"SEV", vmop.VMStartRequest{SEV: true}, files{"sev": null}, sev.SEV, vmop.OK},
		{"SEV-ES", vmop.VMStartRequest{SEV: true, SEVES: true}, files{"sev": null}, sev.ES, vmop.OK},
		{"no descriptor", vmop.VMStartRequest{SEV: true}, files{}, sev.None, vmop.ErrSEV},
	} {
		v := &vm{spec: tt.spec, files: tt.files}
		s, err := v.encrypt()
		if s.Kind != tt.want || (err == nil) != (tt.code == vmop.OK) || err != nil && codeOf(err) != tt.code {
			t.Errorf("%s: %v, error %v", tt.name, s.Kind, err)
		}
		if s.Kind != sev.None && s.FD != int(null.Fd()) {
			t.Errorf("%s: descriptor %d, want %d", tt.name, s.FD, null.Fd())
		}
	}
}

// What SEV refuses has its own code, wherever in building a machine it does.
func TestCodeOfSEV(t *testing.T) {
	refused := fmt.Errorf("add viomb0: %w", &machine.SEVError{Err: errors.New("no balloon")})
	if c := codeOf(refused); c != vmop.ErrSEV {
		t.Errorf("code %v", c)
	}
	if c := sevCode(refused, vmop.ErrKernel); c != vmop.ErrSEV {
		t.Errorf("code %v", c)
	}
	if c := sevCode(errors.New("bad kernel"), vmop.ErrKernel); c != vmop.ErrKernel {
		t.Errorf("code %v", c)
	}
}

// Its memory stays its own, and there is nothing of virtio 0.9.
func TestDevicesOfAnEncryptedGuest(t *testing.T) {
	v := &vm{spec: vmop.VMStartRequest{SEV: true}}
	if err := v.addBalloon(); err != nil || v.balloon != nil {
		t.Errorf("balloon %v, error %v", v.balloon, err)
	}
	if err := v.addControl(); err != nil || v.control != nil {
		t.Errorf("vmmci %v, error %v", v.control, err)
	}
}
