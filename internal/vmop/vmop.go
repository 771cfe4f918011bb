// Package vmop is the vocabulary of vmd: the messages that its processes and
// its clients exchange, and the codes they answer with. PROTOCOL.md describes
// the part that a client sees. It holds types and tables, no behaviour.
//
// A message is an imsg packet whose type is a Type below and whose payload is
// the struct named beside it, in CBOR.
package vmop

// Type says what a message is. The numbers of client messages are part of the
// protocol and never change their meaning.
type Type uint16

// What a client may ask. Each request is answered by one Result, which a List
// precedes with any number of Records messages and a Count with Counted ones;
// all bear the request's id.
const (
	List    Type = 1  // ListRequest
	Start   Type = 2  // StartRequest, descriptors as StartRequest.Files says
	Stop    Type = 3  // StopRequest
	Wait    Type = 4  // WaitRequest
	Pause   Type = 5  // VMRequest
	Unpause Type = 6  // VMRequest
	Console Type = 7  // ConsoleRequest; the Result carries a stream socket
	Break   Type = 8  // VMRequest
	Log     Type = 9  // LogRequest
	Load    Type = 10 // LoadRequest
	Reload  Type = 11 // no payload
	Reset   Type = 12 // ResetRequest
	Send    Type = 13 // SendRequest, with a stream socket
	Receive Type = 14 // ReceiveRequest, with a stream socket
	Count   Type = 20 // StatsRequest

	// What a client is answered.
	Answer  Type = 64 // Result
	Records Type = 65 // VMList
	Counted Type = 66 // StatsList
)

// Between parent and control.
const (
	ControlSetup  Type = 128 + iota // ControlConfig, with the listening socket the first time
	ClientRequest                   // Envelope
	ClientAnswer                    // Envelope
	ClientGone                      // ClientID: whatever it waits for is nobody's business any more; from parent: its copy of the connection is closed
	ClientRefused                   // ClientID: control is to disconnect it
	ClientHere                      // ClientID, with the connection: parent asks the kernel who it is
	UserBusy                        // UserFiles
)

// Between parent and priv.
const (
	TapOpen     Type = 160 + iota // TapRequest
	TapOpened                     // TapResult, with the tap's descriptor
	TapSetup                      // TapRequest: bring a tap up once its VM exists
	TapReady                      // TapResult
	SwitchSetup                   // SwitchRequest
	SwitchReady                   // SwitchResult
	LinkQuery                     // LinkRequest
	LinkFound                     // LinkResult
)

// Between parent and vmm, and vmm and a VM process.
const (
	VMStart   Type = 192 + iota // VMStartRequest, descriptors as its Files says
	VMAdopt                     // VMAdoptRequest, with a connection to the VM process and a pidfd of it
	VMStop                      // VMStopRequest
	VMPause                     // VMID
	VMUnpause                   // VMID
	VMConsole                   // VMConsoleRequest, with a stream socket
	VMBreak                     // VMID
	VMEvent                     // Event
	VMSpec                      // VMStartRequest: vmm hands a VM process its definition
	VMHello                     // Hello: a VM process says who it is
	VMLog                       // LogRequest
	VMSend                      // VMSendRequest, with a stream socket
	VMAbort                     // VMID: the sending is to end; if it is not too late, with the guest running on
)

// Between parent and agentx.
const (
	SNMPSetup  Type = 224 + iota // SNMPConfig, with a connection to the master if it answers an SNMPDial
	SNMPPut                      // VM, with its counter page when a run begins
	SNMPDelete                   // VMID
	SNMPDial                     // no payload: agentx wants a connection to the master; the SNMPSetup that answers has the same id
	SNMPLoaded                   // no payload: the VMs put so far are no news; what comes now is, and may be notified
	SNMPKeep                     // SNMPSwitches: they were set by a manager, or are again what vm.conf has
)

// Verbosity reaches every role.
const SetLog Type = 250 // LogRequest
