package net

import (
	"encoding/binary"
	"errors"

	"microvm/devices/virtio"
)

// Commands of the control queue (section 5.1.6.5): a class and a command, then
// what they need; the answer is one byte.
const (
	classAnnounce = 3
	announceAck   = 0

	classPairs = 4
	pairsSet   = 0

	answerOK    = 0
	answerError = 1
)

// controller answers the control queue.
type controller struct {
	chain   virtio.Chain
	command [4]byte
	answer  [1]byte
}

func (c *controller) serve(n *Net, q *virtio.Queue) error {
	for {
		ok, err := q.Next(&c.chain)
		if !ok {
			return err
		}
		if c.chain.WriteLen == 0 {
			return errors.New("a command without room for its answer")
		}
		c.command = [4]byte{}
		if err := c.chain.ReadAt(c.command[:min(uint64(len(c.command)), c.chain.ReadLen)], 0); err != nil {
			return err
		}
		c.answer[0] = answerOK
		if !n.obey(c.command, c.chain.ReadLen) {
			c.answer[0] = answerError
		}
		if err := c.chain.WriteAt(c.answer[:], 0); err != nil {
			return err
		}
		if err := q.Push(&c.chain, 1); err != nil {
			return err
		}
	}
}

// obey does what a command of so many bytes asks for, if it is one.
func (n *Net) obey(command [4]byte, size uint64) bool {
	switch {
	case command[0] == classAnnounce && command[1] == announceAck && size == 2:
		n.status.And(^uint32(wantAnnounce))
		return n.features&featureGuestAnnounce != 0
	case command[0] == classPairs && command[1] == pairsSet && size == 4:
		pairs := int(binary.LittleEndian.Uint16(command[2:]))
		if n.features&featurePairs == 0 || pairs < 1 || pairs > n.options.Pairs {
			return false
		}
		if err := n.usePairs(pairs); err != nil {
			n.complain("queues cannot be chosen", err)
			return false
		}
		return true
	}
	return false
}
