package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// kernel is an installed Debian cloud kernel: it runs in the lab machine, and
// in the guests of the lab machine.
type kernel struct {
	version string
	image   string              // path of the bzImage
	modules string              // folder of its modules
	deps    map[string][]string // module file → files it needs, both below modules
	byName  map[string]string   // module name with underscores → file
}

// findKernel looks for the newest cloud kernel whose modules hold kvm_amd.
func findKernel() (*kernel, error) {
	images, err := filepath.Glob("/boot/vmlinuz-*-cloud-amd64")
	if err != nil {
		return nil, err
	}
	slices.Sort(images)
	slices.Reverse(images)
	problem := errors.New("no /boot/vmlinuz-*-cloud-amd64 (package linux-image-cloud-amd64)")
	for _, image := range images {
		k := &kernel{image: image}
		k.version = strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		k.modules = filepath.Join("/lib/modules", k.version)
		if problem = k.usable(); problem == nil {
			return k, nil
		}
	}
	return nil, problem
}

func (k *kernel) usable() error {
	f, err := os.Open(k.image)
	if err != nil {
		return err
	}
	f.Close()
	if _, err := os.Stat(filepath.Join(k.modules, "kernel/arch/x86/kvm/kvm-amd.ko")); err != nil {
		return err
	}
	return k.readDeps()
}

// readDeps reads modules.dep: "file: needed needed", the one to be loaded
// first comes last (depmod(8)).
func (k *kernel) readDeps() error {
	b, err := os.ReadFile(filepath.Join(k.modules, "modules.dep"))
	if err != nil {
		return err
	}
	k.deps, k.byName = make(map[string][]string), make(map[string]string)
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		file, needs, ok := strings.Cut(s.Text(), ":")
		if !ok {
			continue
		}
		k.deps[file] = strings.Fields(needs)
		name, _, _ := strings.Cut(filepath.Base(file), ".")
		k.byName[strings.ReplaceAll(name, "-", "_")] = file
	}
	return nil
}

// loadOrder returns the files of the named modules and of all they need, in
// the order to load them.
func (k *kernel) loadOrder(names ...string) ([]string, error) {
	var order []string
	add := func(file string) {
		if !slices.Contains(order, file) {
			order = append(order, file)
		}
	}
	for _, name := range names {
		file, ok := k.byName[name]
		if !ok {
			return nil, fmt.Errorf("kernel %s has no module %s", k.version, name)
		}
		for _, need := range slices.Backward(k.deps[file]) {
			add(need)
		}
		add(file)
	}
	return order, nil
}

// addModules puts modules into an initramfs, below their base names, and a
// file /modules that lists them in the order to load.
func (k *kernel) addModules(c *cpio, names ...string) error {
	order, err := k.loadOrder(names...)
	if err != nil {
		return err
	}
	var list strings.Builder
	for _, file := range order {
		b, err := os.ReadFile(filepath.Join(k.modules, file))
		if err != nil {
			return err
		}
		base := filepath.Base(file)
		c.file(base, b)
		fmt.Fprintln(&list, base)
	}
	c.file("modules", []byte(list.String()))
	return nil
}
