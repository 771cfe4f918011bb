package parent

import (
	"slices"
	"testing"
)

func TestParseCPUs(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want []int32
	}{
		{"0\n", []int32{0}},
		{"0-3\n", []int32{0, 1, 2, 3}},
		{"0,2-3,8\n", []int32{0, 2, 3, 8}},
		{"8190-8191\n", []int32{8190, 8191}},
		{"", nil}, {"\n", nil}, {"0-", nil}, {"-1", nil}, {"3-1", nil}, {"0-8192", nil},
		{"0,x", nil}, {"0-99999999999", nil}, {"1 2", nil},
	} {
		if got := parseCPUs(tt.in); !slices.Equal(got, tt.want) {
			t.Errorf("parseCPUs(%q) = %v, want %v", tt.in, got, tt.want)
		}
	}
	if len(onlineCPUs()) == 0 {
		t.Error("no CPU is on line")
	}
}
