package machine

import "vmd/hv/chipset"

// coalescePorts lets guest writes to ports that only take a number down wait
// for the next exit: the one that asks what stands behind the number. That
// halves the exits of a look at PCI configuration space, which is most of what
// a boot costs. A host that cannot do it costs the guest time and nothing else.
//
// Port 0xcf9 resets and lies among the configuration ports. A guest that waits
// for that without another exit is reset with the next sample.
func (m *Machine) coalescePorts() {
	for _, p := range []struct {
		base uint16
		size uint32
	}{
		{chipset.ResetPort - 1, 4}, // CONFIG_ADDRESS
		{chipset.RTCPort, 1},       // the RTC's index
		{chipset.PostPort, 1},      // Linux writes there to pass the time
	} {
		_ = m.vm.CoalescePorts(&m.posted, m.vcpus[0].kvm, p.base, p.size)
	}
}

// drainPorts carries out what waits. It comes before the exit that a vCPU has
// come out for.
func (m *Machine) drainPorts() { m.posted.Drain(&m.ports) }
