package virtiopci

// legacyRegisters is the Function as the bus sees its legacy BAR. An access
// that no register answers, by offset or by size, reads zero and writes
// nothing.
type legacyRegisters Function

// legacyDevice is where the device's configuration begins: behind the vectors, if
// they are there.
func (f *Function) legacyDevice() uint64 {
	if f.usesMSIX() {
		return legacyDeviceMSIX
	}
	return legacyDevice
}

func (r *legacyRegisters) Read(off uint64, p []byte) {
	f := (*Function)(r)
	clear(p)
	if off == legacyISR {
		p[0] = f.takeISR()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if dev := f.legacyDevice(); off >= dev {
		f.dev.ReadConfig(off-dev, p)
		return
	}
	put(p, f.readLegacy(off, len(p)))
}

func (f *Function) readLegacy(off uint64, size int) uint64 {
	switch at(off, size) {
	case at(legacyDevFeature, 4):
		return uint64(f.core.LegacyFeatures())
	case at(legacyDrvFeature, 4):
		return f.core.DriverFeatures() & 0xffffffff
	case at(legacyQueueSelect, 2):
		return uint64(f.queue)
	case at(legacyStatus, 1):
		return uint64(f.core.Status())
	case at(legacyConfigVector, 2):
		return uint64(f.configVec.Load())
	}
	q := f.core.Queue(int(f.queue))
	if q == nil {
		return 0
	}
	switch at(off, size) {
	case at(legacyQueuePage, 4):
		return uint64(f.core.LegacyPage(int(f.queue)))
	case at(legacyQueueSize, 2):
		return uint64(q.Max)
	case at(legacyQueueVector, 2):
		return uint64(f.queueVec[f.queue].Load())
	}
	return 0
}

func (r *legacyRegisters) Write(off uint64, p []byte) {
	f := (*Function)(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	if dev := f.legacyDevice(); off >= dev {
		f.dev.WriteConfig(off-dev, p)
		return
	}
	f.writeLegacy(off, len(p), get(p))
	f.syncBells()
}

func (f *Function) writeLegacy(off uint64, size int, v uint64) {
	switch at(off, size) {
	case at(legacyDrvFeature, 4):
		f.core.SetLegacyFeatures(uint32(v))
	case at(legacyQueueSelect, 2):
		f.queue = uint16(v)
	case at(legacyStatus, 1):
		f.core.SetLegacyStatus(uint8(v))
		if v == 0 {
			f.wasReset()
		}
	case at(legacyConfigVector, 2):
		f.configVec.Store(f.vector(v))
	case at(legacyQueueNotify, 2):
		if v < uint64(f.core.Queues()) {
			f.core.LegacyRing(int(v))
		}
	}
	if int(f.queue) >= f.core.Queues() {
		return
	}
	switch at(off, size) {
	case at(legacyQueuePage, 4):
		f.core.SetLegacyPage(int(f.queue), uint32(v))
	case at(legacyQueueVector, 2):
		f.queueVec[f.queue].Store(f.vector(v))
	}
}
