package cmd

import (
	"fmt"
	"io"
	"strings"

	"vmd/internal/scaled"
)

// rateColumn is a column of the table of stats but the last, which has names.
type rateColumn struct {
	title string
	width int
	rank  int // those with the lowest go first where the terminal is narrow
	text  func(*rate) string
}

var rateColumns = []rateColumn{
	{"ID", 5, 5, func(r *rate) string { return fmt.Sprint(r.id) }},
	{"CPU%", 6, 6, func(r *rate) string { return fmt.Sprintf("%.1f", r.cpu) }},
	{"EXITS", 7, 3, func(r *rate) string { return whole(r.exits) }},
	{"READS", 7, 2, func(r *rate) string { return whole(r.readOps) }},
	{"RBYTES", 7, 4, func(r *rate) string { return size(r.readB) }},
	{"WRITES", 7, 2, func(r *rate) string { return whole(r.writeOps) }},
	{"WBYTES", 7, 4, func(r *rate) string { return size(r.writeB) }},
	{"RXPKTS", 7, 1, func(r *rate) string { return whole(r.rx) }},
	{"RXBYTES", 7, 4, func(r *rate) string { return size(r.rxB) }},
	{"TXPKTS", 7, 1, func(r *rate) string { return whole(r.tx) }},
	{"TXBYTES", 7, 4, func(r *rate) string { return size(r.txB) }},
	{"MEM", 7, 3, func(r *rate) string { return scaled.Format(r.resident) }},
}

// window is the size of a terminal in characters. What is 0 has no bound.
type window struct{ width, height int }

// someName is how much of the names there should be room for.
const someName = 16

// fit returns the columns that a window has room for beside the names.
func (w window) fit(rates []rate) []rateColumn {
	if w.width == 0 {
		return rateColumns
	}
	names := len("NAME")
	for i := range rates {
		names = max(names, min(len(rates[i].name), someName))
	}
	for rank := range 7 {
		var left []rateColumn
		sum := names
		for _, c := range rateColumns {
			if c.rank > rank {
				left = append(left, c)
				sum += c.width + 1
			}
		}
		if sum <= w.width {
			return left
		}
	}
	return nil
}

// writeRates writes the table. A line that a terminal breaks, or a screen that
// scrolls, cannot be drawn in the same place again: there w has bounds.
func writeRates(out io.Writer, rates []rate, w window) error {
	columns := w.fit(rates)
	if err := w.line(out, columns, func(c *rateColumn) string { return c.title }, "NAME"); err != nil {
		return err
	}
	rows := len(rates)
	if w.height > 0 && rows > w.height-2 { // the heading, and where the cursor is
		rows = max(w.height-3, 0)
	}
	for i := range rates[:rows] {
		r := &rates[i]
		if err := w.line(out, columns, func(c *rateColumn) string { return c.text(r) }, plain(r.name)); err != nil {
			return err
		}
	}
	if more := len(rates) - rows; more > 0 && w.height > 2 {
		return w.write(out, fmt.Sprintf("and %d more", more))
	}
	return nil
}

func (w window) line(out io.Writer, columns []rateColumn, text func(*rateColumn) string, name string) error {
	var b strings.Builder
	for i := range columns {
		fmt.Fprintf(&b, "%*s ", columns[i].width, text(&columns[i]))
	}
	return w.write(out, b.String()+name)
}

// write writes a line as far as it fits.
func (w window) write(out io.Writer, line string) error {
	if w.width > 0 {
		line = line[:min(len(line), w.width)]
	}
	_, err := fmt.Fprintln(out, line)
	return err
}
