package kvm

import (
	"errors"
	"fmt"
)

// DirtyLog reads which pages of a slot with KVM_MEM_LOG_DIRTY_PAGES the guest
// has written to: bit 0 of word 0 is the first page. bitmap has a bit for each
// page, and is filled up to a word. After ManualDirtyLog the pages stay marked
// until ClearDirtyLog, otherwise they are cleared.
func (vm *VM) DirtyLog(slot uint32, bitmap []uint64) error {
	if len(bitmap) == 0 {
		return errors.New("KVM_GET_DIRTY_LOG: no room")
	}
	a := dirtyLog{Slot: slot, Bitmap: &bitmap[0]}
	if _, err := ioctlPtr(vm.fd, KVM_GET_DIRTY_LOG, &a); err != nil {
		return fmt.Errorf("KVM_GET_DIRTY_LOG %d: %w", slot, err)
	}
	return nil
}

// ClearDirtyLog clears the marks that bitmap has, of pages pages of a slot from
// page first on, and looks out for writes to them from now on: it comes before
// they are read. first is a multiple of 64, and pages too unless the slot ends
// there.
func (vm *VM) ClearDirtyLog(slot uint32, first uint64, pages int, bitmap []uint64) error {
	if pages <= 0 || len(bitmap) < (pages+63)/64 {
		return fmt.Errorf("KVM_CLEAR_DIRTY_LOG %d: %d pages in %d words", slot, pages, len(bitmap))
	}
	a := clearDirtyLog{Slot: slot, FirstPage: first, NumPages: uint32(pages), Bitmap: &bitmap[0]}
	if _, err := ioctlPtr(vm.fd, KVM_CLEAR_DIRTY_LOG, &a); err != nil {
		return fmt.Errorf("KVM_CLEAR_DIRTY_LOG %d: %d pages from %d: %w", slot, pages, first, err)
	}
	return nil
}

// ManualDirtyLog makes DirtyLog read only, and slots begin with every page
// marked, so that neither takes long. It says no on a KVM that cannot.
func (vm *VM) ManualDirtyLog() bool {
	const want = KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE | KVM_DIRTY_LOG_INITIALLY_SET
	return vm.Check(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)&want == want &&
		vm.EnableCap(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, want) == nil
}
