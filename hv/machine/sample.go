package machine

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sampleEvery is how old a vCPU's time may be when somebody looks. A vCPU that
// computes need not exit for seconds, so its own thread cannot keep it fresh.
const sampleEvery = time.Second

// sampleUntil keeps the vCPUs' times up to date.
func (m *Machine) sampleUntil(stop <-chan struct{}) {
	t := time.NewTicker(sampleEvery)
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
			m.drainPorts()
			m.Sample()
			m.cfg.Sampled()
		}
	}
}

// Sample brings the vCPUs' times up to date at once.
func (m *Machine) Sample() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, v := range m.vcpus {
		v.sample()
	}
}

// sample adds what the thread has used since the last time. It has m.mu.
func (v *vcpu) sample() {
	tid := v.tid.Load()
	if tid == 0 {
		return
	}
	var ts unix.Timespec
	if unix.ClockGettime(threadClock(tid), &ts) != nil {
		return
	}
	if now := ts.Nano(); now > v.used {
		atomic.AddUint64(v.stat.Time, uint64(now-v.used))
		v.used = now
	}
}

// threadClock is the id of the clock that counts the CPU time of thread tid
// (include/linux/posix-timers_types.h: MAKE_THREAD_CPUCLOCK, CPUCLOCK_SCHED).
func threadClock(tid int32) int32 { return ^tid<<3 | 4 | 2 }
