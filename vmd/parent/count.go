package parent

import (
	"vmd/internal/counters"
	"vmd/internal/vmop"
	"vmd/vmd/parent/registry"
)

// count sends the counters of one VM. They are read where they stand: the VM
// does not notice, and cannot make anybody wait.
func (p *parent) count(a registry.Count) {
	q := p.pending[a.To.Request]
	if q == nil {
		return
	}
	s := a.Stats
	s.Time, s.Resident = counters.Monotonic(), resident(a.PID)
	if cpu, err := counters.ProcessCPU(a.PID); err == nil {
		s.CPU = uint64(cpu)
	}
	if r := p.runs[s.ID]; r != nil && r.page != nil {
		r.fill(&s)
		fillTaps(&s, a.NICs)
	}
	if q.counts = append(q.counts, s); len(q.counts) == vmop.MaxRecords {
		p.flushList(q)
	}
}

// fill adds to s what stands in the counter page.
func (r *run) fill(s *vmop.Stats) {
	s.Memory = r.page.Memory()
	for kind := range counters.ExitKinds {
		s.Exits = append(s.Exits, r.page.Exits(kind))
	}
	for i := range min(r.def.CPUs, counters.MaxVCPUs) {
		s.VCPU = append(s.VCPU, r.page.VCPU(i))
	}
	for i := range min(len(r.def.Disks), counters.MaxDisks) {
		d := r.page.Disk(i)
		s.Disks = append(s.Disks, vmop.DiskStats{
			ReadOps: d.ReadOps, WriteOps: d.WriteOps, ReadBytes: d.ReadBytes, WriteBytes: d.WriteBytes,
			ReadNanos: d.ReadNS, WriteNanos: d.WriteNS, FlushOps: d.FlushOps, Errors: d.Errors,
		})
	}
	for i := range min(len(r.def.NICs), counters.MaxNICs) {
		n := r.page.NIC(i)
		s.NICs = append(s.NICs, vmop.NICStats{
			RxPackets: n.RxPackets, RxBytes: n.RxBytes, RxDrops: n.RxDrops,
			TxPackets: n.TxPackets, TxBytes: n.TxBytes, TxDrops: n.TxDrops,
		})
	}
}
