package model

import "slices"

// srcAt is where the goroutine of (*Source).Run is.
type srcAt uint8

const (
	srcConnect      srcAt = iota // connect: before the main channel's hello
	srcConnecting                // connect: before the urgent channel's
	srcSetup                     // setup: waits for PONG
	srcPause                     // leave: precopy, and handOver before Pause
	srcPack                      // handOver: before PACKAGED is written
	srcAwaitLoaded               // handOver: waits for LOADED
	srcLoaded                    // handOver: before committed is decided
	srcCommitted                 // handOver: before detach
	srcDetached                  // handOver: before HandOver
	srcSendRun                   // handOver: before sendRun
	srcTakeBack                  // before TakeBack
	srcResume                    // before Resume
	srcSayCancel                 // before sayCancel
	srcAwaitRunning              // finishOn: waits for RUNNING
	srcPush                      // push: before COMPLETE is written
	srcAwaitShut                 // push: waits for SHUT
	srcReconnect                 // reconnect: before the main channel's hello
	srcReconnecting              // resume: before the urgent channel's
	srcAwaitAck                  // handshake: waits for RESUME_ACK
	srcSendAgain                 // handshake: before sendRun
	srcHeardShut                 // before END is written
	// Run has returned.
	srcStays     // with an error; the guest is here
	srcCompleted // without one
	srcPaused    // with a PausedError; Resume may follow
	srcDead      // the process has ended
)

var srcNames = [...]string{
	"connect", "connecting", "setup", "pause", "pack", "await LOADED", "loaded", "committed", "detached", "send RUN", "take back",
	"resume", "say CANCEL", "await RUNNING", "push", "await SHUT", "reconnect", "reconnecting", "await ACK", "send RUN again", "heard SHUT",
	"STAYS", "COMPLETED", "PAUSED", "DEAD",
}

func (a srcAt) String() string { return srcNames[a] }

// machineState is that of the source's VM (package vmm).
type machineState uint8

const (
	machineRunning    machineState = iota
	machinePaused                  // by Pause
	machineHandedOver              // by HandOver: vmm.StatePostcopy
	machineGone
)

// What Source.committed says.
const (
	undecided uint8 = iota
	cancelled
	runWritten
)

type source struct {
	at        srcAt
	machine   machineState
	pages     bool // are kept
	committed uint8
	ctxEnded  bool // by Cancel or a timeout
	detached  bool
	running   bool // known to run at the destination
	link      int8 // connection, or noConn
}

func (s state) srcRuns() bool { return s.src.machine == machineRunning }

func (s *state) srcReturns(at srcAt) {
	s.closeLink()
	s.src.at = at
}

func (s *state) closeLink() {
	if s.src.link != noConn {
		s.conns[s.src.link].srcClosed = true
		s.src.link = noConn
	}
}

// dialMain opens a main channel. The destination's acceptor closes the session
// before, whose reader may still have its first few messages in a buffer.
func (b *builder) dialMain(name string, at srcAt) {
	if b.s.dst.at.ended() {
		return // refused; tried again
	}
	for kept := 0; kept <= b.s.session().forward.len(); kept++ {
		b.do(name, func(s *state) {
			if old := s.session(); old.open {
				old.dstClosed, old.forward, old.back = true, old.forward.first(kept), queue{}
			}
			if s.dst.pending != noConn {
				s.conns[s.dst.pending] = connection{open: true, srcClosed: true, dstClosed: true}
			}
			s.dst.greeted = noConn
			s.tidy()
			free := int8(slices.IndexFunc(s.conns[:], func(c connection) bool { return !c.open }))
			s.conns[free] = connection{open: true}
			s.dst.greeted, s.src.link, s.src.at = free, free, at
		})
	}
}

// dialUrgent completes the session, and begins to use it.
func (b *builder) dialUrgent(name string, first message, at, otherwise srcAt) {
	c := b.s.link()
	if !c.cut && !c.srcClosed && !c.dstClosed {
		b.do(name, func(s *state) {
			s.link().send(first)
			s.dst.greeted, s.dst.pending, s.src.at = noConn, s.dst.greeted, at
		})
	}
	if c.brokenAtSource() || b.s.src.ctxEnded && otherwise == srcStays {
		b.do("source: connect fails", func(s *state) {
			s.closeLink()
			s.src.at = otherwise
		})
	}
}

func (b *builder) sourceMoves() {
	if b.s.src.at >= srcStays {
		b.afterTheEnd()
		return
	}
	b.trouble("source: killed", func(s *state) {
		s.src.machine, s.src.pages = machineGone, false
		s.srcReturns(srcDead)
	})
	b.interference()
	switch b.s.src.at {
	case srcConnect, srcConnecting, srcSetup, srcPause, srcPack, srcAwaitLoaded:
		b.beforeLoaded()
	case srcLoaded, srcCommitted, srcDetached, srcSendRun, srcTakeBack, srcResume, srcSayCancel:
		b.decide()
	case srcAwaitRunning, srcPush, srcAwaitShut, srcHeardShut:
		b.postcopy()
	case srcReconnect, srcReconnecting, srcAwaitAck, srcSendAgain:
		b.recovery()
	}
}

// afterTheEnd is what Run's caller may do, and must not.
func (b *builder) afterTheEnd() {
	if b.s.src.at == srcPaused {
		b.person()
	}
	if b.m == resumeAfterShut && b.s.src.at == srcCompleted && !b.s.srcRuns() {
		b.trouble("source: the user resumes the VM", func(s *state) { s.src.machine = machineRunning })
	}
}

// person is what somebody does about a migration that is paused: take it up,
// as long as there is a destination; take the guest back once it is sure that
// the destination never ran it and never will, which (*Source).TakeBack refuses
// where the source knows better.
func (b *builder) person() {
	resume, takeBack := b.do, b.trouble
	if b.s.nobodyLeft() {
		resume, takeBack = b.trouble, b.do
	}
	resume("source: Resume, by a person", func(s *state) { s.src.at = srcReconnect })
	d := b.s.dst
	sure := d.fate == fateGivenUp || d.fate == fateOpen && d.at.ended()
	if !b.s.src.running && (sure || b.m == takesBackUnsure) {
		takeBack("source: TakeBack, by a person", func(s *state) { s.src.at = srcTakeBack })
	}
}

// nobodyLeft tells whether only a person can let the source know that the
// destination never ran the guest. Where it ended in another way, it has told
// the source itself, and the model does not count on people.
func (s state) nobodyLeft() bool {
	return s.dst.fate != fateRan && (s.dst.at == dstLate || s.dst.at == dstDead)
}

// interference is Cancel, by a user at any time, and the timeout; and what
// the end of the context sets off.
func (b *builder) interference() {
	src := b.s.src
	if src.committed == undecided || b.m == cancelAfterRun && src.committed == runWritten && src.detached {
		b.trouble("source: Cancel", func(s *state) {
			s.src.committed, s.src.ctxEnded = cancelled, true
			if s.src.machine == machineHandedOver { // the mutation
				s.link().send(cancel)
				s.closeLink()
				s.src.at = srcTakeBack
			}
		})
	}
	if src.detached {
		return
	}
	if !src.ctxEnded {
		b.trouble("source: timeout", func(s *state) { s.src.ctxEnded = true })
		return
	}
	if c := b.s.link(); c.open && !c.srcClosed && src.at > srcConnecting && src.at < srcTakeBack {
		b.do("source: context.AfterFunc: sayCancel", func(s *state) {
			s.link().send(cancel)
			s.link().srcClosed = true
		})
	}
}

// beforeLoaded is the sequence up to LOADED: setup, and handOver's beginning.
func (b *builder) beforeLoaded() {
	s, c := b.s, b.s.link()
	switch s.src.at {
	case srcConnect:
		if !s.src.ctxEnded {
			b.dialMain("source: connect: main", srcConnecting)
		}
		if s.src.ctxEnded || s.dst.at.ended() {
			b.do("source: connect fails", func(s *state) { s.srcReturns(srcStays) })
		}
	case srcConnecting:
		b.dialUrgent("source: connect: urgent, setup: CONFIG, PING", setup, srcSetup, srcStays)
	case srcSetup:
		if c.back.head() == pong {
			b.do("source: PONG", func(s *state) { s.link().back.pop(); s.src.at = srcPause })
		}
		if s.src.ctxEnded || c.back.head() == failed || c.brokenAtSource() {
			b.do("source: setup fails", func(s *state) { s.srcReturns(srcStays) })
		}
	case srcPause:
		b.do("source: handOver: Pause", func(s *state) { s.src.machine, s.src.at = machinePaused, srcPack })
		b.trouble("source: leave: precopy ends early, or handOver: Pause fails", func(s *state) { s.src.at = srcSayCancel })
	case srcPack:
		b.do("source: handOver: PACKAGED", func(s *state) { s.link().send(packaged); s.src.at = srcAwaitLoaded })
		b.trouble("source: handOver: pack fails", func(s *state) { s.src.at = srcResume })
	case srcAwaitLoaded:
		if c.back.head() == loaded {
			b.do("source: LOADED", func(s *state) { s.link().back.pop(); s.src.at = srcLoaded })
		}
		if s.src.ctxEnded || c.back.head() == failed || c.brokenAtSource() {
			b.do("source: no LOADED", func(s *state) { s.src.at = srcResume })
		}
	}
}

// decide is the end of handOver, and the way back.
func (b *builder) decide() {
	switch b.s.src.at {
	case srcLoaded:
		if b.s.src.committed == cancelled && b.m != runAlthoughCancelled {
			b.do("source: handOver: committed says cancelled", func(s *state) { s.src.at = srcResume })
			return
		}
		b.do("source: handOver: committed = runWritten", func(s *state) {
			if s.src.committed == undecided {
				s.src.committed = runWritten
			}
			s.src.at = srcCommitted
		})
	case srcCommitted:
		if b.s.src.ctxEnded && b.m != runAlthoughCancelled {
			b.do("source: handOver: detach says that the context has ended", func(s *state) { s.src.at = srcResume })
			return
		}
		b.do("source: handOver: detach", func(s *state) { s.src.detached = true; s.src.at = srcDetached })
	case srcDetached:
		b.do("source: handOver: HandOver", func(s *state) { s.src.machine, s.src.at = machineHandedOver, srcSendRun })
		b.trouble("source: handOver: HandOver fails", func(s *state) { s.src.at = srcResume })
	case srcSendRun:
		b.sendRun(srcTakeBack)
	case srcTakeBack:
		b.do("source: TakeBack", func(s *state) { s.src.machine, s.src.at = machinePaused, srcResume })
	case srcResume:
		b.do("source: Resume", func(s *state) { s.src.machine, s.src.at = machineRunning, srcSayCancel })
	case srcSayCancel:
		b.do("source: sayCancel", func(s *state) { s.link().send(cancel); s.srcReturns(srcStays) })
	}
}

// sendRun writes POSTCOPY_RUN. If not all of it could be written, the
// connection is closed and the source goes on at otherwise.
func (b *builder) sendRun(otherwise srcAt) {
	b.do("source: sendRun: POSTCOPY_RUN", func(s *state) { s.link().send(run); s.src.at = srcAwaitRunning })
	if c := b.s.link(); c.cut || c.dstClosed {
		b.do("source: sendRun: nothing could be written", func(s *state) { s.closeLink(); s.src.at = otherwise })
	}
	if b.m == partIsWritten {
		b.trouble("source: sendRun: a part of POSTCOPY_RUN, taken for all", func(s *state) { s.link().send(partOfRun); s.src.at = srcAwaitRunning })
	} else {
		b.trouble("source: sendRun: a part of POSTCOPY_RUN", func(s *state) { s.link().send(partOfRun); s.closeLink(); s.src.at = otherwise })
	}
	if b.m == writtenIsNot {
		b.trouble("source: sendRun: POSTCOPY_RUN and an error, taken for nothing", func(s *state) { s.link().send(run); s.closeLink(); s.src.at = otherwise })
	}
}

// postcopy is finishOn, and what follows it.
func (b *builder) postcopy() {
	s, c := b.s, b.s.link()
	switch s.src.at {
	case srcAwaitRunning:
		if c.back.head() == running {
			b.do("source: RUNNING", func(s *state) { s.link().back.pop(); s.src.running = true; s.src.at = srcPush })
		}
	case srcPush:
		b.do("source: pushAll: COMPLETE", func(s *state) { s.link().send(complete); s.src.at = srcAwaitShut })
	case srcHeardShut:
		b.do("source: END", func(s *state) {
			s.link().send(end)
			s.src.machine, s.src.pages = machineGone, false
			s.srcReturns(srcCompleted)
		})
		return
	}
	if s.src.running && c.back.head() == shut {
		b.do("source: SHUT 0", func(s *state) { s.link().back.pop(); s.src.at = srcHeardShut })
	}
	b.heardFailed()
	if !c.brokenAtSource() {
		return
	}
	switch {
	case b.m == takeBackAfterCut && !s.src.running:
		b.do("source: broken, taken for never run", func(s *state) { s.closeLink(); s.src.at = srcTakeBack })
	case b.m == eofIsSuccess && s.src.at == srcAwaitShut:
		b.do("source: end of file, taken for SHUT 0", func(s *state) { s.src.at = srcHeardShut })
	default:
		b.do("source: broken", func(s *state) { s.closeLink(); s.src.at = srcReconnect })
	}
}

// heardFailed: the destination says that it never ran the guest, and never
// will. sayCancel then tells it that this has been understood.
func (b *builder) heardFailed() {
	if b.s.link().back.head() != failed {
		return
	}
	if b.m == failedIsBroken {
		b.do("source: FAILED, taken for a broken connection", func(s *state) { s.closeLink(); s.src.at = srcReconnect })
		return
	}
	b.do("source: FAILED", func(s *state) { s.link().back.pop(); s.src.at = srcTakeBack })
}

// recovery is reconnect, and handshake.
func (b *builder) recovery() {
	s, c := b.s, b.s.link()
	if b.m == takeBackAtDeadline {
		b.trouble("source: reconnect: deadline, taken for never run", func(s *state) { s.closeLink(); s.src.at = srcTakeBack })
	} else {
		give := b.trouble
		if s.nobodyLeft() {
			give = b.do // nothing can keep it from passing
		}
		give("source: reconnect: deadline", func(s *state) { s.srcReturns(srcPaused) })
	}
	switch s.src.at {
	case srcReconnect:
		b.dialMain("source: resume: connect: main", srcReconnecting)
		return
	case srcReconnecting:
		b.dialUrgent("source: resume: connect: urgent, POSTCOPY_RESUME", resume, srcAwaitAck, srcReconnect)
		return
	case srcSendAgain:
		b.sendRun(srcReconnect)
		return
	}
	b.heardFailed()
	switch {
	case c.back.head() == ackRunning:
		b.do("source: RESUME_ACK: running", func(s *state) { s.link().back.pop(); s.src.running = true; s.src.at = srcPush })
	case c.back.head() == ackLoaded && s.src.running:
		b.do("source: RESUME_ACK: loaded, after RUNNING", func(s *state) { s.closeLink(); s.src.at = srcReconnect })
	case c.back.head() == ackLoaded:
		b.do("source: RESUME_ACK: loaded", func(s *state) { s.link().back.pop(); s.src.at = srcSendAgain })
	}
	if c.brokenAtSource() {
		b.do("source: handshake: broken", func(s *state) { s.closeLink(); s.src.at = srcReconnect })
	}
}
