package parent

import (
	"os"
	"strconv"
	"strings"
)

// maxCPU bounds the kernel's CPU numbers (NR_CPUS is 8192 at most, x86 Kconfig).
const maxCPU = 8191

// onlineCPUs are the kernel's numbers of the CPUs that are on line; none when it
// does not tell (Documentation/admin-guide/cputopology.rst). agentx cannot look
// for itself: it has no file system.
func onlineCPUs() []int32 {
	b, err := os.ReadFile("/sys/devices/system/cpu/online")
	if err != nil {
		return nil
	}
	return parseCPUs(string(b))
}

// parseCPUs reads a list such as 0-3,8; none if it is no such list.
func parseCPUs(s string) (cpus []int32) {
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		a, err := strconv.ParseUint(from, 10, 31)
		if err != nil {
			return nil
		}
		b, err := strconv.ParseUint(to, 10, 31)
		if err != nil || b < a || b > maxCPU {
			return nil
		}
		for n := a; n <= b; n++ {
			cpus = append(cpus, int32(n))
		}
	}
	return cpus
}
