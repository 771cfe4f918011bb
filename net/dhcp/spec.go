package dhcp

// The layout of a BOOTP message (RFC 951; RFC 2131, 2), offsets in bytes.
const (
	offOp     = 0
	offHType  = 1
	offHLen   = 2
	offHops   = 3
	offXID    = 4
	offFlags  = 10
	offCIAddr = 12
	offYIAddr = 16
	offSIAddr = 20
	offGIAddr = 24
	offCHAddr = 28
	offFile   = 108
	offVendor = 236 // the magic cookie, then options

	// minMessage is the length that old clients insist on (RFC 951, 3).
	minMessage = 300
)

// Values of op, htype and flags.
const (
	bootRequest   = 1
	bootReply     = 2
	hardwareEther = 1
	flagBroadcast = 0x8000
)

const (
	serverPort = 67
	clientPort = 68
)

// cookie opens the options (RFC 2132, 2).
var cookie = [4]byte{99, 130, 83, 99}

// Options (RFC 2132).
const (
	optPad         = 0
	optSubnetMask  = 1
	optRouter      = 3
	optDNS         = 6
	optHostName    = 12
	optRequestedIP = 50
	optLeaseTime   = 51
	optMessageType = 53
	optServerID    = 54
	optClassID     = 60
	optEnd         = 255
)

// pxeClient begins the class of a client that is firmware (PXE 2.1, options
// of a DHCPDISCOVER; RFC 2132, 9.13).
const pxeClient = "PXEClient"

// Message types (RFC 2132, 9.6). No type is plain BOOTP.
const (
	msgNone     = 0
	msgDiscover = 1
	msgOffer    = 2
	msgRequest  = 3
	msgDecline  = 4
	msgACK      = 5
	msgNAK      = 6
	msgRelease  = 7
	msgInform   = 8
)
