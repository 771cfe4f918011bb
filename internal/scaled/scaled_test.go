package scaled

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in   string
		want int64
		err  error
	}{
		{"4.5G", 4831838208, nil},
		{"1.5K", 1536, nil},
		{"1.9", 1, nil},
		{".5M", 524288, nil},
		{"5.M", 5 << 20, nil},
		{"512", 512, nil},
		{" 512M", 512 << 20, nil},
		{"\t512m", 512 << 20, nil},
		{"+512M", 512 << 20, nil},
		{"-1G", -1 << 30, nil},
		{"129G", 129 << 30, nil},
		{"1048575", 1048575, nil},
		{"1048577", 1048577, nil},
		{"1B", 1, nil},
		{"1k", 1 << 10, nil},
		{"1T", 1 << 40, nil},
		{"1p", 1 << 50, nil},
		{"7E", 7 << 60, nil},
		{"7.5E", 7<<60 + 1<<59, nil},
		{"0.1E", 115292150460684697, nil},
		{"0.0000000000000000009E", 1, nil},
		{"0.00000000000000000009E", 0, nil}, // 20th digit is dropped
		{"1.99999999999999999999999999K", 2047, nil},
		{"9223372036854775807", math.MaxInt64, nil},
		{"00000000000000000001", 1, nil},

		// Nothing to read is zero.
		{"", 0, nil},
		{"  ", 0, nil},
		{"-", 0, nil},
		{"+", 0, nil},
		{".", 0, nil},
		{"M", 0, nil},
		{".G", 0, nil},

		// Only white space may follow.
		{"10G ", 10 << 30, nil},
		{"10 ", 10, nil},
		{"10G!", 0, ErrSyntax},
		{"10G,5", 0, ErrSyntax},
		{"10GB", 0, ErrSyntax},
		{"10Gi", 0, ErrSyntax},
		{"1M1", 0, ErrSyntax},
		{"10 G", 0, ErrSyntax},

		{"1..2G", 0, ErrSyntax},
		{"1.2.3", 0, ErrSyntax},
		{"--1G", 0, ErrSyntax},
		{"+-1G", 0, ErrSyntax},
		{"1e3", 0, ErrSyntax},
		{"0x10", 0, ErrSyntax},
		{"1,000", 0, ErrSyntax},
		{"1Z", 0, ErrSyntax},
		{"1\x00", 0, ErrSyntax},
		{"1\u00a0", 0, ErrSyntax},

		{"8E", 0, ErrRange},
		{"9E", 0, ErrRange},
		{"9223372036854775808", 0, ErrRange},
		{"000000000000000000001", 0, ErrRange}, // 21 digits
		{"111111111111111111111", 0, ErrRange},
		{"18446744073709551616", 0, ErrRange},
		{"9007199254740992K", 0, ErrRange},
		{"8589934592G", 0, ErrRange},
	}
	for _, tt := range tests {
		got, err := Parse(tt.in)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("Parse(%q) = %d, %v; want %d, %v", tt.in, got, err, tt.want, tt.err)
		}
	}
}

func TestFormat(t *testing.T) {
	tests := []struct {
		in   uint64
		want string
	}{
		{0, "0B"},
		{1, "1B"},
		{100, "100B"},
		{1023, "1023B"},
		{1024, "1.0K"},
		{1536, "1.5K"},
		{512 << 20, "512M"},
		{1 << 30, "1.0G"},
		{3 << 29, "1.5G"},
		{128 << 30, "128G"},
		{92379545, "88.1M"},           // 88.1 MiB
		{1055286886, "1006M"},         // 1006.4 MiB
		{1<<30 - 1, "1024M"},          // carry keeps the unit
		{99<<10 + 972, "99.9K"},       // 99.949
		{99<<10 + 973, "100K"},        // 99.950
		{100<<10 + 511, "101K"},       // 100.499: tenths are rounded to 5 first
		{100<<10 + 400, "100K"},       // 100.39
		{1000<<20 + 600<<10, "1001M"}, // 1000.6
		{10 << 40, "10.0T"},
		{1 << 50, "1.0P"},
		{math.MaxUint64, "16.0E"},
		{4831838208, "4.5G"},
		{1047527424, "999M"}, // 999.0 MiB
		{1023<<20 + 1023<<10 + 1, "1024M"},
		{1<<20 - 1, "1024K"},
		{9<<30 + 1019<<20, "10.0G"}, // carry into two digits
		{99<<30 + 1023<<20 + 1, "100G"},
		{11<<60 + 512<<50, "11.5E"},
		{2<<10 + 51, "2.0K"}, {2<<10 + 52, "2.1K"},
	}
	for _, tt := range tests {
		if got := Format(tt.in); got != tt.want {
			t.Errorf("Format(%d) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

// FuzzParse checks that what Parse accepts is spelt as the rule says, and that
// Format of it stays within six characters and reads back close to it.
func FuzzParse(f *testing.F) {
	for _, s := range []string{"512M", "1.5g", " +.5K ", "-", "7.9999999999999999999E", "1..2", "10GB", "99999999999999999999"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		n, err := Parse(s)
		if err != nil {
			if n != 0 {
				t.Fatalf("Parse(%q) = %d with error %v", s, n, err)
			}
			return
		}
		if strings.Trim(s, "+-.0123456789bBkKmMgGtTpPeE \t\n\v\f\r") != "" {
			t.Fatalf("Parse(%q) accepted a strange byte", s)
		}
		if n < 0 {
			return
		}
		out := Format(uint64(n))
		if len(out) > 6 {
			t.Fatalf("Format(%d) = %q is longer than six characters", n, out)
		}
		back, err := Parse(out)
		if err != nil && !errors.Is(err, ErrRange) {
			t.Fatalf("Parse(Format(%d) = %q): %v", n, out, err)
		}
		if diff := math.Abs(float64(back - n)); err == nil && diff > float64(n)*0.051 {
			t.Fatalf("Format(%d) = %q reads back as %d", n, out, back)
		}
	})
}
