package lab

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"vmd/internal/testenv"
)

// Environment of a test binary that Main prepared.
const (
	// ProgramsVar is a folder with vmd and vmctl.
	ProgramsVar = "VMD_TEST_PROGRAMS"
	// PackagesVar lists test binaries of Packages, separated by spaces.
	PackagesVar = "VMD_TEST_PACKAGES"
)

// Packages have tests for a stock kernel or a real KVM: they run in the lab
// machine too. internal/house finds a package that is missing here.
var Packages = []string{"hv/kvm", "hv/machine", "hv/virtio/vionet", "internal/privsep", "internal/testenv", "net/vswitch", "vmd/priv"}

// Main is the body of a TestMain. On a host with a real KVM, and root, it runs
// the tests at once. Elsewhere it runs this test binary, with its flags, in
// the lab machine; what is printed there and the exit status become those of
// this process. A host that cannot run the lab skips all, or fails if
// VMD_TEST_REQUIRE names T1L or T3.
func Main(m *testing.M) int {
	flag.Parse()
	if testenv.InLab() || os.Getenv(hereVar) == "1" || flag.Lookup("test.list").Value.String() != "" {
		return m.Run()
	}
	start := time.Now()
	var status int
	var err error
	if UsesHost() {
		status, err = runHere(Here)
	} else if err = Available(); err != nil {
		return unavailable(err)
	} else {
		status, err = runThere(start)
	}
	if err != nil {
		fmt.Printf("%v\nFAIL\n", err)
		return 1
	}
	fmt.Printf("lab: whole cycle %.1f s\n", time.Since(start).Seconds())
	return status
}

func unavailable(err error) int {
	if testenv.Required("T1L", "T3") {
		fmt.Printf("%s requires T1L/T3: %v\nFAIL\n", testenv.RequireVar, err)
		return 1
	}
	fmt.Printf("SKIP: %v\n", err)
	return 0
}

// MainHere is the body of a TestMain whose tests of the whole program need root
// and no stock guests: they run on this host whatever its KVM is, as Here has it.
func MainHere(m *testing.M) int {
	flag.Parse()
	if os.Getenv(hereVar) == "1" || flag.Lookup("test.list").Value.String() != "" {
		return m.Run()
	}
	if uid := os.Geteuid(); uid != 0 {
		if testenv.Required("T1", "T2") {
			fmt.Printf("%s requires T1/T2: needs root, runs as uid %d\nFAIL\n", testenv.RequireVar, uid)
			return 1
		}
		fmt.Printf("SKIP: needs root, runs as uid %d\n", uid)
		return 0
	}
	status, err := runHere(inNamespaces)
	if err != nil {
		fmt.Printf("%v\nFAIL\n", err)
		return 1
	}
	return status
}

// runHere runs this binary again, beside the usual paths of this host, with
// vmd and vmctl.
func runHere(run func(context.Context, Options) (int, error)) (int, error) {
	root, err := ModuleRoot()
	if err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "vmdtest")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil {
		return 0, err
	}
	if err := noteSources(root); err != nil {
		return 0, err
	}
	if _, err := BuildPrograms(root, dir); err != nil {
		return 0, err
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	timeout := testTimeout()
	return run(context.Background(), Options{
		Command: append([]string{self}, innerFlags(os.Args[1:], timeout-graceOutside)...),
		Env:     []string{ProgramsVar + "=" + dir},
		Stdout:  os.Stdout,
		Timeout: timeout,
	})
}

// runThere runs this binary, and those of Packages to go with it, in the
// machine.
func runThere(start time.Time) (int, error) {
	root, err := ModuleRoot()
	if err != nil {
		return 0, err
	}
	if err := noteSources(root); err != nil {
		return 0, err
	}
	dir, err := os.MkdirTemp("", "vmdtest")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	o, err := labOptions(root, dir)
	if err != nil {
		return 0, err
	}
	// go test does not wait longer, whatever there was to build or to wait for.
	ctx, cancel := context.WithDeadline(context.Background(), start.Add(o.Timeout))
	defer cancel()
	return Run(ctx, o)
}

func labOptions(root, dir string) (Options, error) {
	o := Options{Stdout: os.Stdout, Timeout: testTimeout()}
	var err error
	if o.Files, err = BuildPrograms(root, dir); err != nil {
		return o, err
	}
	examples, err := FilesBelow(filepath.Join(root, "etc"), "/src/etc")
	if err != nil {
		return o, err
	}
	o.Files = append(o.Files, examples...)
	var binaries []string
	for _, pkg := range wantedPackages(flag.Lookup("test.run").Value.String()) {
		files, name, err := BuildTest(root, pkg, dir)
		if err != nil {
			return o, err
		}
		o.Files = append(o.Files, files...)
		binaries = append(binaries, name)
	}
	self, err := os.Executable()
	if err != nil {
		return o, err
	}
	wd, err := os.Getwd()
	if err != nil {
		return o, err
	}
	rel, err := filepath.Rel(root, wd)
	if err != nil {
		return o, err
	}
	o.Dir = "/src/" + filepath.ToSlash(rel)
	testdata, err := FilesBelow("testdata", o.Dir+"/testdata")
	if err != nil {
		return o, err
	}
	o.Files = append(append(o.Files, testdata...), File{Name: o.Dir + "/self.test", Path: self, Mode: 0o755})
	o.Command = append([]string{"./self.test"}, innerFlags(os.Args[1:], o.Timeout-graceInside)...)
	o.Env = []string{
		testenv.RequireVar + "=" + os.Getenv(testenv.RequireVar),
		ProgramsVar + "=/usr/sbin",
		PackagesVar + "=" + strings.Join(binaries, " "),
	}
	return o, nil
}

// PackagesTest is the name of the test of package e2e that runs Packages.
const PackagesTest = "TestPackages"

// wantedPackages returns what -run lets PackagesTest run: building binaries
// for nothing would take longer than most tests.
func wantedPackages(run string) []string {
	top, _, _ := strings.Cut(run, "/")
	if ok, err := regexp.MatchString(top, PackagesTest); err != nil || !ok {
		return nil
	}
	return Packages
}

// graceInside is how much earlier the tests in the machine time out, so that
// their stacks get out, and graceOutside how much earlier than go test the
// machine does.
const (
	graceInside  = 30 * time.Second
	graceOutside = 10 * time.Second
)

// testTimeout is what -timeout leaves for the machine.
func testTimeout() time.Duration {
	d, err := time.ParseDuration(flag.Lookup("test.timeout").Value.String())
	if err != nil || d == 0 {
		d = 10 * time.Minute
	}
	return max(d-graceOutside, graceInside+time.Second)
}

// outerFlags are about files of the host, or are set anew.
var outerFlags = []string{"test.testlogfile", "test.timeout", "test.outputdir", "test.coverprofile",
	"test.gocoverdir", "test.cpuprofile", "test.memprofile", "test.blockprofile", "test.mutexprofile",
	"test.trace", "test.paniconexit0", "test.fuzzcachedir"}

// innerFlags returns the flags for the binary in the machine.
func innerFlags(args []string, timeout time.Duration) []string {
	inner := []string{"-test.timeout=" + timeout.String()}
next:
	for _, arg := range args {
		name, _, _ := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		for _, outer := range outerFlags {
			if name == outer {
				continue next
			}
		}
		inner = append(inner, arg)
	}
	return inner
}
