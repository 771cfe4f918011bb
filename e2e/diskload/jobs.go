package diskload

import (
	"fmt"
	"io"
	"time"
)

// Job is something that time does to a disk.
type Job struct {
	Name  string
	Ops   int
	Bytes int // of each operation
	do    func(*device, Job) error
}

// timed is the part of a disk that jobs use.
const timed = 64 * mib

// Jobs are done in this order, on a disk of 64 MiB or more that is empty at
// first. What "first write" fills the others read and write again.
var Jobs = []Job{
	{"first write, 1 MiB", timed / mib, mib, (*device).writeAll},
	{"write, 1 MiB", timed / mib, mib, (*device).writeAll},
	{"read, 1 MiB", timed / mib, mib, (*device).readAll},
	{"random read, 4 KiB", 500, Block, (*device).readRandom},
	{"random write, 4 KiB", 500, Block, (*device).writeRandom},
	{"random read, 4 KiB, 16 at a time", 496, Block, (*device).readMany},
	{"random write, 4 KiB, 16 at a time", 496, Block, (*device).writeMany},
	{"write and sync, 4 KiB", 200, Block, (*device).writeSync},
}

// timeJobs prints a line "job INDEX NANOSECONDS" for each job.
func (d *device) timeJobs(out io.Writer) error {
	if d.size < timed {
		return errShort
	}
	for k, j := range Jobs {
		start := time.Now()
		if err := j.do(d, j); err != nil {
			return fmt.Errorf("%s: %w", j.Name, err)
		}
		fmt.Fprintf(out, "job %d %d\n", k, time.Since(start).Nanoseconds())
	}
	return nil
}

func (d *device) writeAll(j Job) error {
	for k := range j.Ops {
		if err := d.write(d.buf[:j.Bytes], int64(k*j.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) readAll(j Job) error {
	for k := range j.Ops {
		if err := d.read(d.buf[:j.Bytes], int64(k*j.Bytes)); err != nil {
			return err
		}
	}
	return nil
}

// anywhere is a place for operation k.
func anywhere(k int) int64 { return Place(uint32(k+1)) * Block % timed }

func (d *device) readRandom(j Job) error {
	for k := range j.Ops {
		if err := d.read(d.buf[:j.Bytes], anywhere(k)); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) writeRandom(j Job) error {
	for k := range j.Ops {
		if err := d.write(d.buf[:j.Bytes], anywhere(k)); err != nil {
			return err
		}
	}
	return nil
}

func (d *device) writeSync(j Job) error {
	for k := range j.Ops {
		if err := d.write(d.buf[:j.Bytes], anywhere(k)); err != nil {
			return err
		}
		if err := d.sync(); err != nil {
			return err
		}
	}
	return nil
}

// depth is how many requests readMany and writeMany have under way.
const depth = 16

func (d *device) readMany(j Job) error { return d.many(j, false) }

func (d *device) writeMany(j Job) error { return d.many(j, true) }

func (d *device) many(j Job, write bool) error {
	q, err := newAIO(d.fd)
	if err != nil {
		return err
	}
	for k := 0; k < j.Ops; k += depth {
		for i := range depth {
			q.set(i, write, d.buf[i*Block:(i+1)*Block], anywhere(k+i))
		}
		if err := q.run(); err != nil {
			return err
		}
	}
	return nil
}
