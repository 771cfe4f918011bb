package sev

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeFirmware answers SEV_PLATFORM_STATUS with bytes.
type fakeFirmware struct {
	status string
	answer FirmwareError
	err    error
}

func (f fakeFirmware) Command(cmd uint32, data []byte) (FirmwareError, error) {
	if cmd != 1 || len(data) != 12 {
		return 0, unix.EINVAL
	}
	copy(data, f.status)
	return f.answer, f.err
}

func TestReadStatus(t *testing.T) {
	s, err := ReadStatus(fakeFirmware{status: "\x01\x31\x02\x01\x01\x00\x00\x18\x05\x01\x00\x00"})
	want := Status{API: API{1, 49}, Build: 24, State: Working, Owned: true, ES: true, Guests: 261}
	if err != nil || s != want {
		t.Errorf("status %+v, error %v; want %+v", s, err, want)
	}
	_, err = ReadStatus(fakeFirmware{answer: 0x13, err: unix.EIO})
	if err == nil || !errors.Is(err, FirmwareError(0x13)) || !strings.Contains(err.Error(), "SEV PLATFORM_STATUS: ") {
		t.Errorf("error %v", err)
	}
}

func TestStatusCheck(t *testing.T) {
	old := DefaultPolicy(SEV).WithMinAPI(API{1, 50})
	for _, tt := range []struct {
		name   string
		s      Status
		kind   Kind
		policy Policy
		want   string // "" for none
	}{
		{"not initialized yet", Status{}, ES, DefaultPolicy(ES), ""},
		{"initialized", Status{State: Initialized, ES: true}, ES, DefaultPolicy(ES), ""},
		{"without SEV-ES", Status{State: Initialized}, ES, DefaultPolicy(ES), "sev_es=1"},
		{"without SEV-ES, for SEV", Status{State: Working}, SEV, DefaultPolicy(SEV), ""},
		{"a minor too old", Status{API: API{1, 49}}, SEV, old, "update it"},
		{"a minor that will do", Status{API: API{1, 50}}, SEV, old, ""},
		{"a major that will do", Status{API: API{2, 0}}, SEV, old, ""},
		{"a state of its own", Status{State: 7}, SEV, DefaultPolicy(SEV), "state 7"},
		{"another kind", Status{}, SEV, DefaultPolicy(ES), "asks for SEV-ES"},
	} {
		err := tt.s.Check(tt.kind, tt.policy)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
		}
	}
}

// Any descriptor that is not /dev/sev says so.
func TestDeviceOfAnotherKind(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := ReadStatus(Device(f.Fd())); !errors.Is(err, unix.ENOTTY) {
		t.Errorf("error %v, want %v", err, unix.ENOTTY)
	}
}

func TestFirmwareErrors(t *testing.T) {
	for e, want := range map[FirmwareError]string{
		0x01: "firmware says INVALID_PLATFORM_STATE (0x1)", 0x07: "firmware says POLICY_FAILURE (0x7)",
		0x1b: "firmware says INVALID_MDATA_ENTRY (0x1b)", 0x1c: "firmware says 0x1c",
		0xffffffff: "firmware was not asked",
	} {
		if got := e.Error(); got != want {
			t.Errorf("%#x: %q, want %q", uint32(e), got, want)
		}
	}
	for e, name := range firmwareNames {
		if name == "" {
			t.Errorf("%#x has no name", e)
		}
	}
	for e := range firmwareAdvice {
		if e > lastOfFirmwareNamesList {
			t.Errorf("advice on %#x, which has no name", uint32(e))
		}
	}
}
