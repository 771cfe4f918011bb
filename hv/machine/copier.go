package machine

import (
	"context"
	"fmt"
	"math/bits"
	"time"

	"vmd/hv/kvm"
	"vmd/hv/mem"
	"vmd/hv/state"
)

const pageSize = mem.Page

// chunk is how many pages are taken from the log at a time, so that those
// behind may still change without being sent twice. KVM wants a multiple of 64.
const chunk = 1024

// copier sends the guest's memory.
type copier struct {
	m   *Machine
	ctx context.Context
	w   *state.Writer
	p   *state.PageWriter

	todo     [][]uint64 // a bit for each page of each region that is to be sent
	scratch  []uint64
	left     uint64 // bits of todo
	data     uint64 // pages sent that had something in them
	pages    uint64 // pages sent
	progress func(left uint64)
}

func newCopier(ctx context.Context, m *Machine, w *state.Writer) *copier {
	c := &copier{m: m, ctx: ctx, w: w, p: state.NewPageWriter(w)}
	longest := 0
	for i := range m.mem.Regions() {
		n := m.mem.BitmapWords(i)
		c.todo = append(c.todo, make([]uint64, n))
		longest = max(longest, n)
	}
	c.scratch = make([]uint64, longest)
	return c
}

func (c *copier) close() { c.p.Close() }

// track starts to note which pages change: by the guest, by devices here, by
// those in the kernel. All pages are to be sent.
func (c *copier) track() error {
	c.m.mem.Track(true)
	for _, f := range c.m.virtio {
		if err := f.Track(true); err != nil {
			return err
		}
	}
	if err := c.m.logDirty(kvm.KVM_MEM_LOG_DIRTY_PAGES); err != nil {
		return err
	}
	for i, r := range c.m.mem.Regions() {
		pages := len(r.Bytes) / pageSize
		for w := range c.todo[i] {
			c.todo[i][w] = ^uint64(0)
		}
		if n := pages % 64; n != 0 {
			c.todo[i][len(c.todo[i])-1] = 1<<n - 1
		}
		c.left += uint64(pages)
	}
	return nil
}

// untrack ends what track began.
func (c *copier) untrack() error {
	err := c.m.logDirty(0)
	for _, f := range c.m.virtio {
		if e := f.Track(false); err == nil {
			err = e
		}
	}
	c.m.mem.Track(false)
	return err
}

// logDirty sets the flags of the slots of RAM.
func (m *Machine) logDirty(flags uint32) error {
	for slot, r := range m.mem.Regions() {
		if err := m.vm.SetMemory(uint32(slot), r.Base, r.Bytes, flags); err != nil {
			return err
		}
	}
	return nil
}

// collect adds what has changed to what is to be sent.
func (c *copier) collect() error {
	c.left = 0
	for i := range c.todo {
		todo, log := c.todo[i], c.scratch[:len(c.todo[i])]
		if err := c.m.vm.DirtyLog(uint32(i), log); err != nil {
			return err
		}
		for w := range todo {
			todo[w] |= log[w]
		}
		n, err := c.m.mem.TakeDirty(i, todo)
		if err != nil {
			return err
		}
		c.left += uint64(n)
	}
	return nil
}

// send sends the pages that are to be sent.
func (c *copier) send() error {
	for i, r := range c.m.mem.Regions() {
		for first := 0; first < len(c.todo[i]); first += chunk / 64 {
			words := c.todo[i][first:min(first+chunk/64, len(c.todo[i]))]
			if err := c.sendChunk(uint32(i), r, first*64, words); err != nil {
				return err
			}
		}
	}
	if err := c.p.Flush(); err != nil {
		return err
	}
	return c.w.Flush()
}

// sendChunk sends the pages of words, which begin with page first of region r.
func (c *copier) sendChunk(slot uint32, r mem.Region, first int, words []uint64) error {
	n := 0
	for _, w := range words {
		n += bits.OnesCount64(w)
	}
	if n == 0 {
		return nil
	}
	if err := c.ctx.Err(); err != nil {
		return context.Cause(c.ctx)
	}
	if c.m.saving.manualLog {
		pages := min(len(words)*64, len(r.Bytes)/pageSize-first)
		if err := c.m.vm.ClearDirtyLog(slot, uint64(first), pages, words); err != nil {
			return err
		}
	}
	for i, w := range words {
		for ; w != 0; w &= w - 1 {
			off := (first + i*64 + bits.TrailingZeros64(w)) * pageSize
			data, err := c.p.Page(r.Base+mem.GPA(off), r.Bytes[off:off+pageSize])
			if err != nil {
				return err
			}
			if data {
				c.data++
			}
		}
		words[i] = 0
	}
	c.pages += uint64(n)
	c.left -= uint64(n)
	c.progress(c.left)
	return nil
}

// sendROM sends the firmware.
func (c *copier) sendROM() error {
	rom := c.m.rom
	for off := 0; off < len(rom); off += pageSize {
		if _, err := c.p.Page(highBase-mem.GPA(len(rom)-off), rom[off:off+pageSize]); err != nil {
			return err
		}
	}
	return c.p.Flush()
}

// roundState is the section Round of a stream.
type roundState struct {
	Round int    `cbor:"1,keyasint"` // from 1
	Pages uint64 `cbor:"2,keyasint"` // sent so far
}

// rounds sends the memory of a running guest, again and again what has changed
// meanwhile, until the rest is little enough or does not become less.
func (c *copier) rounds(p *pace) (forced bool, err error) {
	for {
		if err := c.collect(); err != nil {
			return false, err
		}
		if now, forced := p.pause(c.left); now {
			return forced, nil
		}
		start, data := time.Now(), c.data
		if err := c.send(); err != nil {
			return false, err
		}
		if err := c.w.Put(state.Round, roundState{p.rounds + 1, c.pages}); err != nil {
			return false, err
		}
		if err := c.w.Flush(); err != nil {
			return false, fmt.Errorf("round %d: %w", p.rounds+1, err)
		}
		p.took(c.data-data, time.Since(start))
	}
}
