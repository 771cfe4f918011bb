package cmd

import (
	"bufio"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vmd/internal/scaled"
	"vmd/internal/vmop"
	"vmd/vmctl/client"
)

// statsOptions are the options of stats.
type statsOptions struct {
	vm       vmop.Ref
	interval time.Duration
	rounds   int // 0: the default
	by       string
}

func (t *tool) statsCmd() *cobra.Command {
	o := statsOptions{interval: 2 * time.Second, by: "cpu"}
	c := &cobra.Command{
		Use:   "stats [-i seconds] [-n rounds] [-s column] [id]",
		Short: "show what VMs are busy with",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return &usageError{cmd: c}
			}
			if len(args) == 1 {
				ref, err := t.oneRef(c, args)
				if err != nil {
					return err
				}
				o.vm = ref
			}
			return t.stats(c.Context(), o)
		},
	}
	f := c.Flags()
	add(f, "interval", "i", func(word string) (err error) {
		o.interval, err = parseInterval(word)
		return err
	})
	add(f, "rounds", "n", count(&o.rounds, math.MaxInt32, "number of rounds", "rounds"))
	add(f, "sort", "s", func(word string) error {
		if word = strings.ToLower(word); orders[word] == nil {
			return failf("cannot sort by %s", word)
		}
		o.by = word
		return nil
	})
	f.BoolVar(&t.json, "json", t.json, "")
	return c
}

// stats shows rates, round after round. A table on a terminal is drawn anew in
// the same place until somebody interrupts it; a program gets one round.
func (t *tool) stats(ctx context.Context, o statsOptions) error {
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	live := !t.json && onTerminal(t.out)
	if o.rounds == 0 && !live {
		o.rounds = 1
	}
	before, err := sample(ctx, c, o.vm)
	if err != nil {
		return err
	}
	for round := 1; ; round++ {
		if err := sleep(ctx, o.interval); err != nil {
			return err
		}
		now, err := sample(ctx, c, o.vm)
		if err != nil {
			return err
		}
		rates := ratesOf(before, now)
		slices.SortStableFunc(rates, func(a, b rate) int { return orders[o.by](&a, &b) })
		if err := t.writeRound(rates, round, live); err != nil {
			return err
		}
		if round == o.rounds {
			return nil
		}
		before = now
	}
}

// parseInterval reads a number of seconds, a tenth to a day.
func parseInterval(word string) (time.Duration, error) {
	f, err := strconv.ParseFloat(strings.TrimSpace(word), 64)
	if err != nil || !(f >= 0.1 && f <= 86400) {
		return 0, failf("invalid interval: %s", word)
	}
	return time.Duration(f * float64(time.Second)), nil
}

// sleep waits for d.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func sample(ctx context.Context, c *client.Client, ref vmop.Ref) ([]vmop.Stats, error) {
	all, err := c.Stats(ctx, ref)
	if err != nil {
		return nil, because(err, "stats command failed: %s", reason(err))
	}
	return all, nil
}

// home puts the cursor into the upper left corner and clears what is below it
// (ECMA-48, 8.3.21 and 8.3.39).
const home = "\x1b[H\x1b[J"

func (t *tool) writeRound(rates []rate, round int, live bool) error {
	w := bufio.NewWriter(t.out)
	var err error
	switch {
	case t.json:
		err = writeRatesJSON(w, rates)
	case live:
		_, err = io.WriteString(w, home)
	case round > 1:
		_, err = io.WriteString(w, "\n")
	}
	if err == nil && !t.json {
		var size window
		if live {
			size = windowOf(t.out)
		}
		err = writeRates(w, rates, size)
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return failf("write error: %s", strerror(err))
	}
	return nil
}

// rate is what one VM did between two samples, by the second.
type rate struct {
	id                uint32
	name              string
	state             vmop.State
	cpus              int
	cpu               float64 // percent of one CPU
	exits             float64
	readOps, writeOps float64
	readB, writeB     float64
	rx, tx            float64 // packets
	rxB, txB          float64
	memory, resident  uint64
}

// ratesOf compares two samples. A VM that began a run between them is compared
// with nothing, one that is gone is left out.
func ratesOf(before, now []vmop.Stats) []rate {
	old := make(map[uint32]*vmop.Stats, len(before))
	for i := range before {
		old[before[i].ID] = &before[i]
	}
	rates := make([]rate, 0, len(now))
	for i := range now {
		s := &now[i]
		o := old[s.ID]
		if o == nil || o.Started != s.Started {
			o = &vmop.Stats{Time: s.Started}
		}
		rates = append(rates, rateOf(o, s))
	}
	return rates
}

func rateOf(o, s *vmop.Stats) rate {
	span := float64(s.Time-o.Time) / 1e9
	per := func(a, b uint64) float64 {
		if b <= a || span <= 0 { // a guest's reset begins the counters anew
			return 0
		}
		return float64(b-a) / span
	}
	r := rate{
		id: s.ID, name: s.Name, state: s.State, cpus: s.CPUs, memory: s.Memory, resident: s.Resident,
		cpu: per(o.CPU, s.CPU) / 1e7, exits: per(exits(o), exits(s)),
	}
	for i := range s.Disks {
		var was vmop.DiskStats
		if i < len(o.Disks) {
			was = o.Disks[i]
		}
		is := &s.Disks[i]
		r.readOps += per(was.ReadOps, is.ReadOps)
		r.writeOps += per(was.WriteOps, is.WriteOps)
		r.readB += per(was.ReadBytes, is.ReadBytes)
		r.writeB += per(was.WriteBytes, is.WriteBytes)
	}
	for i := range s.NICs {
		var was vmop.NICStats
		if i < len(o.NICs) {
			was = o.NICs[i]
		}
		is := &s.NICs[i]
		r.rx += per(was.RxPackets, is.RxPackets)
		r.tx += per(was.TxPackets, is.TxPackets)
		r.rxB += per(was.RxBytes, is.RxBytes)
		r.txB += per(was.TxBytes, is.TxBytes)
	}
	return r
}

// most orders by a number, the greatest first.
func most(f func(*rate) float64) func(a, b *rate) int {
	return func(a, b *rate) int {
		return cmp.Or(cmp.Compare(f(b), f(a)), cmp.Compare(a.name, b.name))
	}
}

// orders are what a table can be sorted by.
var orders = map[string]func(a, b *rate) int{
	"cpu":    most(func(r *rate) float64 { return r.cpu }),
	"exits":  most(func(r *rate) float64 { return r.exits }),
	"disk":   most(func(r *rate) float64 { return r.readB + r.writeB }),
	"net":    most(func(r *rate) float64 { return r.rxB + r.txB }),
	"memory": most(func(r *rate) float64 { return float64(r.resident) }),
	"name":   func(a, b *rate) int { return cmp.Compare(a.name, b.name) },
}

func whole(f float64) string { return fmt.Sprintf("%.0f", f) }

// size is f as scaled has it; a broken VM's counters can say anything.
func size(f float64) string { return scaled.Format(uint64(min(f, 1<<62))) }

// jsonRates is a round; vmctl(8) describes it.
type jsonRates struct {
	Version int        `json:"version"`
	VMs     []jsonRate `json:"vms"`
}

type jsonRate struct {
	ID         uint32  `json:"id"`
	Name       string  `json:"name"`
	State      string  `json:"state"`
	CPUs       int     `json:"cpus"`
	CPU        float64 `json:"cpu_percent"`
	Exits      float64 `json:"exits"`
	ReadOps    float64 `json:"read_ops"`
	ReadBytes  float64 `json:"read_bytes"`
	WriteOps   float64 `json:"write_ops"`
	WriteBytes float64 `json:"write_bytes"`
	RxPackets  float64 `json:"rx_packets"`
	RxBytes    float64 `json:"rx_bytes"`
	TxPackets  float64 `json:"tx_packets"`
	TxBytes    float64 `json:"tx_bytes"`
	Memory     uint64  `json:"memory"`
	Resident   uint64  `json:"resident"`
}

// writeRatesJSON writes a round on one line.
func writeRatesJSON(w io.Writer, rates []rate) error {
	s := jsonRates{Version: jsonVersion, VMs: make([]jsonRate, 0, len(rates))}
	for i := range rates {
		r := &rates[i]
		s.VMs = append(s.VMs, jsonRate{
			r.id, r.name, r.state.String(), r.cpus, tenth(r.cpu), tenth(r.exits), tenth(r.readOps), tenth(r.readB),
			tenth(r.writeOps), tenth(r.writeB), tenth(r.rx), tenth(r.rxB), tenth(r.tx), tenth(r.txB), r.memory, r.resident,
		})
	}
	return encodeJSON(w, s, "")
}

func tenth(f float64) float64 { return math.Round(f*10) / 10 }
