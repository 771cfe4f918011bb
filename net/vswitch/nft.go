package vswitch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// What there is to nf_tables here: linux/netfilter/nfnetlink.h and
// linux/netfilter/nf_tables.h. Numbers in attributes are big-endian, those of
// headers the host's.
const (
	nftSubsystem = 10 // NFNL_SUBSYS_NFTABLES
	protoInet    = 1  // NFPROTO_INET
	batchBegin   = 16 // NFNL_MSG_BATCH_BEGIN
	batchEnd     = 17 // NFNL_MSG_BATCH_END

	newTable   = nftSubsystem << 8 // NFT_MSG_NEWTABLE, which is 0 …
	newSet     = nftSubsystem<<8 | 9
	getSet     = nftSubsystem<<8 | 10
	newSetElem = nftSubsystem<<8 | 12
	getSetElem = nftSubsystem<<8 | 13
	delSetElem = nftSubsystem<<8 | 14

	tableName = 1 // NFTA_TABLE_NAME

	setTable    = 1 // NFTA_SET_TABLE …
	setName     = 2
	setFlags    = 3
	setKeyType  = 4
	setKeyLen   = 5
	setID       = 10
	setUserData = 13

	elemTable   = 1 // NFTA_SET_ELEM_LIST_TABLE …
	elemSet     = 2
	elemList    = 3
	listElement = 1 // NFTA_LIST_ELEM
	elemKey     = 1 // NFTA_SET_ELEM_KEY
	dataValue   = 1 // NFTA_DATA_VALUE

	nested    = 1 << 15 // NLA_F_NESTED
	typeMask  = 0x3fff  // NLA_TYPE_MASK
	nlHeader  = 16
	nfHeader  = 4
	maxAnswer = 64 << 10
)

// nftWait bounds how long an answer of the kernel's is waited for: it comes at
// once, or never.
var nftWait = unix.Timeval{Sec: 5}

// errAnswer says that the kernel's answer does not look like one.
var errAnswer = errors.New("answer makes no sense")

// nft is a socket to nf_tables.
type nft struct {
	fd  int
	seq uint32
	buf []byte
}

func openNFT() (*nft, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("open a netfilter socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &nftWait)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open a netfilter socket: %w", err), unix.Close(fd))
	}
	return &nft{fd: fd, buf: make([]byte, maxAnswer)}, nil
}

func (n *nft) close() error { return unix.Close(n.fd) }

// nftMsg is a message for inet tables: its type, its flags beside those that
// all have, and its attributes.
type nftMsg struct {
	typ, flags uint16
	attrs      []byte
}

func (n *nft) append(b []byte, typ, flags uint16, family byte, resource uint16, attrs []byte) []byte {
	n.seq++
	b = binary.NativeEndian.AppendUint32(b, uint32(nlHeader+nfHeader+len(attrs)))
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, n.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, 0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, attrs...)
}

// batch has all of msgs done or none.
func (n *nft) batch(msgs ...nftMsg) error {
	b := n.append(nil, batchBegin, 0, 0, nftSubsystem, nil)
	begin := n.seq
	for _, m := range msgs {
		b = n.append(b, m.typ, m.flags|unix.NLM_F_ACK, protoInet, 0, m.attrs)
	}
	last := n.seq
	b = n.append(b, batchEnd, 0, 0, nftSubsystem, nil)
	if err := n.send(b); err != nil {
		return err
	}
	// There is an answer to each message, or one to the begin if that is as
	// far as the kernel came (nfnetlink_rcv_batch).
	var failed error
	for seen := begin; seen != last; {
		answer, err := n.receive()
		if err != nil {
			return err
		}
		for m := range messages(answer) {
			if m.typ != unix.NLMSG_ERROR || m.seq < begin || m.seq > last {
				continue
			}
			if err := m.errno(); err != nil && failed == nil {
				failed = err
			}
			if seen = m.seq; seen == begin {
				return failed
			}
		}
	}
	return failed
}

// dump calls f with the attributes of each object that m asks for.
func (n *nft) dump(m nftMsg, f func(attrs []byte)) error {
	if err := n.send(n.append(nil, m.typ, unix.NLM_F_DUMP, protoInet, 0, m.attrs)); err != nil {
		return err
	}
	for {
		answer, err := n.receive()
		if err != nil {
			return err
		}
		for a := range messages(answer) {
			switch {
			case a.seq != n.seq:
			case a.typ == unix.NLMSG_ERROR, a.typ == unix.NLMSG_DONE:
				return a.errno()
			case len(a.body) >= nfHeader:
				f(a.body[nfHeader:])
			}
		}
	}
}

func (n *nft) send(b []byte) error {
	if err := unix.Sendto(n.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("ask nf_tables: %w", err)
	}
	return nil
}

func (n *nft) receive() ([]byte, error) {
	for {
		k, _, err := unix.Recvfrom(n.fd, n.buf, 0)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return nil, fmt.Errorf("hear from nf_tables: %w", err)
		case k < nlHeader:
			return nil, fmt.Errorf("hear from nf_tables: %w", errAnswer)
		default:
			return n.buf[:k], nil
		}
	}
}
