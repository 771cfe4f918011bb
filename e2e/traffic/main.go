// Traffic makes and measures network traffic between a guest and its host, for
// tests and for the bench. It is one static program, so that a guest without
// anything else can run it.
//
//	traffic serve                    in the guest: answer measure
//	traffic measure [flags] ADDRESS  on the host: figures, one a line
//	traffic ping [flags] ADDRESS     on the host: round trips only
//	traffic send [flags] INTERFACE   frames of any kind
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return errors.New("want serve, measure, ping or send")
	}
	f := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "serve":
		return serve()
	case "measure":
		w := work{}
		f.IntVar(&w.bytes, "bytes", 48<<20, "bytes of each stream")
		f.IntVar(&w.frames, "frames", 16<<10, "small frames each way")
		f.IntVar(&w.trips, "trips", 1000, "round trips")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return w.measure(f.Arg(0))
	case "ping":
		trips := f.Int("trips", 1000, "round trips")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return pingOnly(f.Arg(0), *trips)
	case "send":
		s := sending{}
		f.StringVar(&s.kind, "kind", "plain", "kind of the frames: "+kinds())
		f.StringVar(&s.source, "source", "", "source `address`, instead of the interface's own")
		f.IntVar(&s.count, "count", 1, "how many")
		f.IntVar(&s.rate, "rate", 0, "how many a second at most; 0: as fast as it goes")
		f.BoolVar(&s.answered, "answered", false, "wait for a DHCP message and print its type")
		if err := f.Parse(args[1:]); err != nil {
			return err
		}
		return s.send(f.Arg(0))
	}
	return fmt.Errorf("unknown command %q", args[0])
}
