package kvm

import "fmt"

// InternalError is KVM_EXIT_INTERNAL_ERROR: KVM could not go on with the guest.
type InternalError struct {
	Suberror uint32 // 1: an instruction that KVM cannot emulate; 3: an exception it cannot deliver
	Code     []byte // the instruction, where KVM knows it
	Data     []uint64
}

func (e *InternalError) Error() string {
	why := "internal error"
	switch e.Suberror {
	case 1:
		why = "cannot emulate an instruction"
	case 2:
		why = "more than one exception at once"
	case 3:
		why = "cannot deliver an event"
	case 4:
		why = "unexpected exit of the processor"
	}
	s := fmt.Sprintf("KVM: %s (suberror %d)", why, e.Suberror)
	if len(e.Code) > 0 {
		s += fmt.Sprintf(", code % x", e.Code)
	}
	return s
}

// InternalError returns the details of KVM_EXIT_INTERNAL_ERROR. With
// KVM_CAP_EXIT_ON_EMULATION_FAILURE data[0] has bit 0 set where data[1] holds
// the number of instruction bytes and what follows the bytes (struct kvm_run,
// emulation_failure).
func (v *VCPU) InternalError() *InternalError {
	x := exitAs[internalExit](v.run)
	e := &InternalError{Suberror: x.Suberror, Data: append([]uint64(nil), x.Data[:min(x.Ndata, 16)]...)}
	if x.Suberror != 1 || len(e.Data) < 3 || e.Data[0]&1 == 0 {
		return e
	}
	n := min(e.Data[1]&0xff, 15)
	for i := range n {
		// The size is the first byte of data[1], the bytes follow it.
		w := e.Data[1+(i+1)/8]
		e.Code = append(e.Code, byte(w>>(8*((i+1)%8))))
	}
	return e
}

// EntryError is KVM_EXIT_FAIL_ENTRY: the processor refused the guest's state.
type EntryError struct {
	Reason uint64 // hardware_entry_failure_reason
	CPU    uint32
}

func (e *EntryError) Error() string {
	return fmt.Sprintf("processor %d refused to enter the guest, hardware reason %#x", e.CPU, e.Reason)
}

// EntryError returns the details of KVM_EXIT_FAIL_ENTRY.
func (v *VCPU) EntryError() *EntryError {
	x := exitAs[failExit](v.run)
	return &EntryError{x.HardwareEntryFailureReason, x.CPU}
}

// SystemEvent returns the kind of KVM_EXIT_SYSTEM_EVENT: 1 shutdown, 2 reset, 3
// crash.
func (v *VCPU) SystemEvent() uint32 { return exitAs[systemExit](v.run).Type }
