// Package config reads vm.conf(5): a lexer, a recursive-descent parser and the
// checks that a definition has to pass before a VM can be made of it.
//
//	bytes --lexer--> tokens --parser--> Config, or every error with its line
//
// It decides nothing about running VMs and keeps no state: the same file gives
// the same Config, for vmd -n as for the daemon. Files and the user database
// are reached through Options only. Nothing here logs.
//
// The grammar is OpenBSD's. What Linux guests need in addition (extensions, and
// among them the cpus of later releases) is recognised only where an option of
// a VM may stand, with its argument, and what SNMP managers need only behind
// agentx, so that a file written for OpenBSD keeps its meaning.
package config

import (
	"net/netip"
	"time"
)

// Limits of a definition. Those of a name are in bytes.
const (
	MaxDisks      = 4
	MaxNICs       = 4
	MaxCPUs       = 64
	MaxName       = 63                   // of a VM or a switch
	MaxIfName     = 15                   // of a network interface or a group
	MaxPath       = 1023                 // of an image, a kernel, a CD
	MaxCmdline    = 2047                 // arch/x86 COMMAND_LINE_SIZE, less its NUL
	MaxOS         = 255                  // SnmpAdminString, RFC 7666 vmOSType
	MaxRDomain    = 255                  // OpenBSD's RT_TABLEID_MAX
	MinMemory     = 1 << 20              // bytes
	MaxMemory     = 128 << 30            // bytes
	DefaultMemory = 512 << 20            // bytes
	DefaultPath   = "/etc/vm.conf"       // may be missing
	DefaultMaster = "/var/agentx/master" // AgentX socket (RFC 2741, 8.1.1)
	SocketGroup   = "vmd"                // owns the control socket, where it exists
	DefaultDelay  = 30 * time.Second

	maxMaster  = 103 // sun_path of OpenBSD, less its NUL
	maxContext = 32  // SnmpAdminString of vacmContextName (RFC 3415)
)

// Config is a whole configuration. Load fills in every default that does not
// depend on the state of the daemon.
type Config struct {
	// LocalPrefix is where the addresses of local interfaces come from: IPv4,
	// 1 to 16 bits.
	LocalPrefix netip.Prefix
	// LocalInet6 asks for IPv6 addresses on local interfaces as well.
	LocalInet6 bool
	// LocalPrefix6 is 0 to 64 bits long. When it is not valid the daemon draws
	// a random /64 from fd00::/8.
	LocalPrefix6 netip.Prefix
	// LocalDNS are the name servers, IPv4, that guests with a local interface
	// are told. Without any it is the host's address on the interface.
	LocalDNS []netip.Addr
	// SocketOwner owns the control socket. It always has a group.
	SocketOwner Owner
	AgentX      AgentX
	// Parallel is how many VMs are started at once, 1 or more.
	Parallel int
	// Delay is the time from one batch of starts to the next, 0 or more.
	Delay time.Duration

	// Switches are the enabled switches, and VMs all VMs, in the order of the
	// file. Names are unique.
	Switches []Switch
	VMs      []VM

	// Warnings are for the operator: what was accepted but is hardly meant.
	Warnings []Message

	switches map[string]int
	vms      map[string]int
}

// Owner is a user and perhaps a group. The zero value is root and no group.
type Owner struct {
	UID    uint32
	GID    uint32 // only if HasGID
	HasGID bool
}

// RDomain is a routing domain, which on Linux is a VRF with that number as its
// table. When it is not set, the interface stays where vmd itself is.
type RDomain struct {
	ID  int // 0 to MaxRDomain
	Set bool
}

// Switch is a bridge that VMs can be attached to.
type Switch struct {
	Name      string
	File      string // where it is defined
	Line      int
	Interface string // the Linux bridge
	Group     string // "" is none
	Locked    bool   // every interface on it may only use its own MAC address
	RDomain   RDomain
	Up        bool
}

// VM is the definition of a virtual machine. A zero field stands for "not
// said" until SetDefaults or Instantiate fills it in.
type VM struct {
	Name string
	File string // where it is defined; "" for one that a client defined
	Line int
	// Parent is the VM that this one is an instance of, or "".
	Parent string

	Enabled     bool   // start it with the daemon
	MemoryBytes uint64 // a whole number of MiB
	CPUs        int
	Boot        string // kernel or firmware; "" is the default firmware
	Initrd      string // extension
	Cmdline     string // extension
	BootDevice  BootDevice
	CDROM       string
	Disks       []Disk
	NICs        []NIC
	// MinNICs is the argument of interfaces: NICs is filled up to it.
	MinNICs int

	Owner Owner
	// OwnerSet tells "owner root" from no owner, for Instantiate.
	OwnerSet bool
	Allow    Allow

	SEV   bool // encrypted memory
	SEVES bool // encrypted registers as well; implies SEV

	// Transitional gives it virtio devices that drivers of 0.9 know, too.
	Transitional bool // extension
	// VirtioSet tells "virtio modern" from nothing, for Instantiate.
	VirtioSet bool

	Limits  Limits   // extension
	Restart Restart  // extension
	UUID    [16]byte // extension; zero when the daemon shall choose one
	OS      string   // extension; what vmOSType says
}

// BootDevice is the device that firmware shall boot from.
type BootDevice uint8

// The boot devices.
const (
	BootAuto BootDevice = iota // firmware's own order
	BootDisk
	BootCDROM
	BootNet // the first interface; a kernel given with boot: as if it came from there
)

var bootDevices = [...]string{"", "disk", "cdrom", "net"}

// String returns the word of vm.conf; "" for BootAuto.
func (d BootDevice) String() string { return bootDevices[d&3] }

// ParseBootDevice is the reverse of String.
func ParseBootDevice(s string) (d BootDevice, ok bool) {
	for i, name := range bootDevices {
		if s == name {
			return BootDevice(i), true
		}
	}
	return 0, false
}

// Format is the format of a disk image.
type Format uint8

// The formats.
const (
	FormatAuto Format = iota // decided when the image is opened
	FormatRaw
	FormatQcow2
)

var formats = [...]string{"", "raw", "qcow2"}

// String returns the word of vm.conf; "" for FormatAuto.
func (f Format) String() string {
	if int(f) < len(formats) {
		return formats[f]
	}
	return "unknown"
}

// Disk is a disk image.
type Disk struct {
	Path   string // absolute and without symbolic links, when from a file
	Format Format
}

// NIC is a network interface of a VM, as it was written: what its switch adds
// is Attach's to say.
type NIC struct {
	Local   bool    // routed, with addresses and DHCP from vmd
	Tap     string  // "" is the next free tap
	Switch  string  // "" is none
	Group   string  // "" is none
	MAC     [6]byte // zero: the daemon chooses
	Locked  bool
	RDomain RDomain
	Down    bool
}

// Port is a NIC together with what its switch says.
type Port struct {
	Bridge  string // "" when there is no such switch
	Groups  []string
	Locked  bool
	RDomain RDomain
}

// Attach returns the port that n has on sw; nil stands for no switch, or one
// that is not there. It is asked at every start, so that a switch that was
// changed by a reload counts.
func (n *NIC) Attach(sw *Switch) Port {
	p := Port{Locked: n.Locked, RDomain: n.RDomain}
	if n.Group != "" {
		p.Groups = append(p.Groups, n.Group)
	}
	if sw == nil {
		return p
	}
	p.Bridge = sw.Interface
	p.Locked = p.Locked || sw.Locked
	if !p.RDomain.Set {
		p.RDomain = sw.RDomain
	}
	if sw.Group != "" && sw.Group != n.Group {
		p.Groups = append(p.Groups, sw.Group)
	}
	return p
}

// Option is a set of options that the owner of instances may set.
type Option uint8

// The options of "allow instance".
const (
	AllowBoot Option = 1 << iota
	AllowMemory
	AllowInterface
	AllowDisk
	AllowCDROM
	AllowInstance
	AllowCPUs
)

// Allow is who may make instances of a VM, and what they may set in them.
type Allow struct {
	Options Option
	// Owner is who may; nobody but root unless HasOwner.
	Owner    Owner
	HasOwner bool
}

// Limits bound what a VM takes from its host. Zero is no limit.
type Limits struct {
	CPUPercent int    // of one host CPU: 250 is two and a half
	MemoryHigh uint64 // bytes; above it the VM is slowed down (cgroup v2, memory.high)
	IORead     uint64 // bytes per second
	IOWrite    uint64 // bytes per second
}

// Restart is what happens when a VM's process fails. A guest that reboots or
// powers off is none of its business.
type Restart struct {
	Set       bool // the file said something
	OnFailure bool
	Max       int           // not more restarts than this
	Window    time.Duration // within this time
}

// What "restart on-failure" means without numbers.
const (
	DefaultRestartMax    = 3
	DefaultRestartWindow = 10 * time.Minute
)

// Switch returns the enabled switch of that name, or nil.
func (c *Config) Switch(name string) *Switch {
	if i, ok := c.switches[name]; ok {
		return &c.Switches[i]
	}
	return nil
}

// VM returns the VM of that name, or nil.
func (c *Config) VM(name string) *VM {
	if i, ok := c.vms[name]; ok {
		return &c.VMs[i]
	}
	return nil
}

func (c *Config) addSwitch(sw Switch) {
	if c.switches == nil {
		c.switches = make(map[string]int)
	}
	c.switches[sw.Name] = len(c.Switches)
	c.Switches = append(c.Switches, sw)
}

func (c *Config) addVM(v VM) {
	if c.vms == nil {
		c.vms = make(map[string]int)
	}
	c.vms[v.Name] = len(c.VMs)
	c.VMs = append(c.VMs, v)
}
