package kvm

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// System is /dev/kvm.
type System struct {
	fd      int
	runSize int // bytes of a vCPU's shared pages
}

// Open takes over fd, a descriptor of /dev/kvm open for reading and writing,
// and checks that this KVM can do what the package needs. On error fd stays the
// caller's.
func Open(fd int) (*System, error) {
	v, err := ioctl(fd, KVM_GET_API_VERSION, 0)
	if err != nil {
		return nil, fmt.Errorf("ask for KVM's version: %w", err)
	}
	if v != apiVersion {
		return nil, fmt.Errorf("KVM speaks version %d of its interface, need %d", v, apiVersion)
	}
	size, err := ioctl(fd, KVM_GET_VCPU_MMAP_SIZE, 0)
	if err != nil {
		return nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %w", err)
	}
	if size < minRunSize || size > maxRunSize {
		return nil, fmt.Errorf("KVM_GET_VCPU_MMAP_SIZE: %d bytes, expected %d to %d", size, minRunSize, maxRunSize)
	}
	s := &System{fd: fd, runSize: int(size)}
	if err := s.require(); err != nil {
		return nil, err
	}
	return s, nil
}

// A vCPU's shared pages are struct kvm_run and a page of port data at least.
const (
	minRunSize = 2 * 4096
	maxRunSize = 1 << 20
)

// OpenDevice opens path, usually /dev/kvm.
func OpenDevice(path string) (*System, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s, err := Open(fd)
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// Close closes /dev/kvm. VMs made from it live on.
func (s *System) Close() error { return unix.Close(s.fd) }

// Check asks for a capability: 0 means no, anything else yes, or how many.
func (s *System) Check(c Cap) int { return check(s.fd, c) }

func check(fd int, c Cap) int {
	n, err := ioctl(fd, KVM_CHECK_EXTENSION, uintptr(c))
	if err != nil {
		return 0 // an unknown number answers 0, an error means no less
	}
	return int(n)
}

// SupportedCPUID is what the host's processors and KVM can offer a guest.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	var c cpuid2
	c.Nent = maxCPUID
	if _, err := ioctlPtr(s.fd, KVM_GET_SUPPORTED_CPUID, &c); err != nil {
		return nil, fmt.Errorf("KVM_GET_SUPPORTED_CPUID: %w", err)
	}
	n := min(c.Nent, maxCPUID)
	return append([]CPUIDEntry(nil), c.Entries[:n]...), nil
}

// required are the capabilities that nothing works without. Every one has been
// in mainline kernels for x86 since 4.11 (KVM_CAP_IMMEDIATE_EXIT is the newest).
var required = []struct {
	cap  Cap
	name string
}{
	{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
	{KVM_CAP_HLT, "KVM_CAP_HLT"},
	{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
	{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
	{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
	{KVM_CAP_NR_VCPUS, "KVM_CAP_NR_VCPUS"},
	{KVM_CAP_NR_MEMSLOTS, "KVM_CAP_NR_MEMSLOTS"},
	{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
	{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
	{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
	{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
	{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
	{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
	{KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
	{KVM_CAP_GET_TSC_KHZ, "KVM_CAP_GET_TSC_KHZ"},
	{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
	{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
}

// MissingError names the capabilities that a KVM lacks.
type MissingError struct {
	Caps []string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("this KVM lacks %v", e.Caps)
}

func (s *System) require() error {
	var e MissingError
	for _, r := range required {
		if s.Check(r.cap) == 0 {
			e.Caps = append(e.Caps, r.name)
		}
	}
	if len(e.Caps) > 0 {
		return &e
	}
	if n := s.Check(KVM_CAP_IRQ_ROUTING); n < maxRoutes {
		return fmt.Errorf("KVM_CAP_IRQ_ROUTING: %d routes, need %d", n, maxRoutes)
	}
	return nil
}

// MaxVCPUs is the most vCPUs that one VM can have.
func (s *System) MaxVCPUs() int {
	n := s.Check(KVM_CAP_MAX_VCPUS)
	if n == 0 {
		n = s.Check(KVM_CAP_NR_VCPUS) // api.rst, 4.4
	}
	return n
}
