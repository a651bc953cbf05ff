package model

// dstAt is where the goroutine of (*Destination).Receive is.
type dstAt uint8

const (
	dstAccept    dstAt = iota // Receive: waits for the first session
	dstSetup                  // readMain: phases setup and advise
	dstListening              // packaged: devices are being loaded
	dstLoading                // phase loaded, before LOADED is said
	dstLoaded                 // readMain, phase loaded: waits for POSTCOPY_RUN
	dstStart                  // run: fate is decided, before machine.Run
	dstStarted                // run: before RUNNING is said
	dstRunning                // readMain, phase running
	dstShut                   // complete: SHUT said, waits for END
	dstGivenUp                // FAILED said, waits for CANCEL
	dstAgain                  // again: waits for the source to come back
	dstHandshake              // serve: waits for POSTCOPY_RESUME
	// Receive has returned.
	dstCompleted
	dstUnheard // completed, and the source may not know
	dstFailed  // it never ran the guest
	dstLate    // nor this one: the source did not come back in time
	dstLost    // the guest ran here and cannot go on
	dstDead    // the process has ended
	dstStopped // the guest ran here and could have gone on
)

var dstNames = [...]string{
	"accept", "setup", "listening", "loading", "loaded", "start", "started", "running", "await END", "await CANCEL", "again", "handshake",
	"COMPLETED", "COMPLETED UNHEARD", "FAILED", "LATE", "LOST", "DEAD", "STOPPED",
}

func (a dstAt) String() string { return dstNames[a] }

func (a dstAt) ended() bool { return a >= dstCompleted }

// What Destination.fate says.
const (
	fateOpen uint8 = iota
	fateRan
	fateGivenUp
)

type destination struct {
	at      dstAt
	fate    uint8
	runs    bool // its vCPUs may
	whole   bool // every page is here
	ended   bool // the guest has, here
	serving int8 // connection, or noConn
	pending int8 // in acceptor.sessions
	greeted int8 // in acceptor.main: its urgent channel is yet to come
}

func (s *state) dstReturns(at dstAt) {
	for _, c := range []int8{s.dst.serving, s.dst.pending, s.dst.greeted} {
		if c != noConn {
			s.conns[c].dstClosed = true
		}
	}
	s.dst.serving, s.dst.pending, s.dst.greeted, s.dst.at = noConn, noConn, noConn, at
}

func (s *state) closeSession() {
	s.session().dstClosed = true
	s.dst.serving = noConn
}

func (b *builder) destinationMoves() {
	s := b.s
	if s.dst.at.ended() {
		return
	}
	b.trouble("destination: killed", func(s *state) { s.dst.runs = false; s.dstReturns(dstDead) })
	b.giveUp()
	if s.dst.runs {
		b.trouble("destination: the guest ends", func(s *state) { s.dst.runs, s.dst.ended = false, true })
		if s.dst.at != dstShut && !s.dst.whole {
			b.trouble("destination: fail: a page cannot be put in place", func(s *state) { s.dst.runs = false; s.dstReturns(dstLost) })
		}
	}
	switch s.dst.at {
	case dstAccept, dstAgain:
		b.between()
	case dstStart, dstStarted:
		b.start()
	default:
		b.read()
		if s.session().brokenAtDestination() {
			b.broken()
		}
	}
}

// giveUp is GiveUp, by a user or a timeout, and every error after which this
// side cannot go on: both decide the fate, once.
func (b *builder) giveUp() {
	s := b.s
	if s.dst.fate == fateOpen {
		b.trouble("destination: GiveUp, or an error that no connection mends", func(s *state) { s.dst.fate = fateGivenUp })
		return
	}
	if s.dst.fate != fateGivenUp {
		return
	}
	switch s.dst.at {
	case dstAccept:
		b.do("destination: Receive ends", func(s *state) { s.dstReturns(dstFailed) })
	case dstSetup, dstListening, dstLoading:
		// LOADED was never said: there is nothing to be settled.
		b.do("destination: sayFailed", func(s *state) { s.session().reply(failed); s.dstReturns(dstFailed) })
	case dstLoaded:
		b.sayFailed("destination: sayFailed")
	case dstAgain:
		if b.m == givesUpSilently || b.m == failedThenLeaves {
			b.do("destination: again: given up", func(s *state) { s.dstReturns(dstFailed) })
		}
	}
}

// sayFailed tells a source that may have written POSTCOPY_RUN, and stays until
// it is known to have heard it.
func (b *builder) sayFailed(name string) {
	switch b.m {
	case givesUpSilently:
		b.do("destination: closes, FAILED unsaid", func(s *state) { s.dstReturns(dstFailed) })
	case failedThenLeaves:
		b.do(name+", leaves", func(s *state) { s.session().reply(failed); s.dstReturns(dstFailed) })
	default:
		b.do(name, func(s *state) { s.session().reply(failed); s.dst.at = dstGivenUp })
	}
}

// between is the time without a session.
func (b *builder) between() {
	s := b.s
	if s.dst.pending != noConn {
		name, at := "destination: serve", dstSetup
		if s.dst.at == dstAgain {
			name, at = "destination: serve a resumed session", dstHandshake
		}
		b.do(name, func(s *state) { s.dst.serving, s.dst.pending, s.dst.at = s.dst.pending, noConn, at })
	}
	if s.dst.greeted != noConn {
		b.trouble("destination: acceptor: abandon", func(s *state) { s.conns[s.dst.greeted].dstClosed = true; s.dst.greeted = noConn })
	}
	if s.dst.at != dstAgain {
		return
	}
	switch {
	case s.dst.fate != fateRan:
		b.trouble("destination: again: deadline", func(s *state) { s.dstReturns(dstLate) })
	case s.dst.whole || s.dst.ended:
		b.trouble("destination: again: deadline", func(s *state) { s.dstReturns(dstUnheard) })
	default:
		b.trouble("destination: again: Abandon, by a person", func(s *state) { s.dst.runs = false; s.dstReturns(dstLost) })
	}
	if b.m == stopsAtDeadline && s.dst.fate == fateRan && !s.dst.whole && !s.dst.ended {
		b.trouble("destination: again: deadline, the guest is stopped", func(s *state) { s.dst.runs = false; s.dstReturns(dstStopped) })
	}
}

// start is run, after the fate is decided.
func (b *builder) start() {
	if b.s.dst.at == dstStarted {
		b.do("destination: RUNNING", func(s *state) { s.session().reply(running); s.dst.at = dstRunning })
		return
	}
	b.do("destination: run: machine.Run", func(s *state) { s.dst.runs, s.dst.at = true, dstStarted })
	b.trouble("destination: run: machine.Run fails", func(s *state) {
		if b.m == startFailsSilently {
			s.dstReturns(dstFailed)
			return
		}
		s.dst.fate = fateGivenUp
		s.session().reply(failed)
		s.dst.at = dstGivenUp
	})
}

// read is readMain, with the messages that make sense in each phase.
func (b *builder) read() {
	s := b.s
	head := s.session().forward.head()
	take := func(name string, f func(s *state)) {
		b.do("destination: "+name, func(s *state) { s.session().forward.pop(); f(s) })
	}
	switch s.dst.at {
	case dstListening:
		b.do("destination: packaged: load", func(s *state) { s.dst.at = dstLoading })
	case dstLoading:
		b.do("destination: LOADED", func(s *state) { s.session().reply(loaded); s.dst.at = dstLoaded })
	case dstRunning:
		if s.dst.ended {
			b.do("destination: watchGuest: SHUT 0", func(s *state) { s.sayShut(b.m == endedThenLeaves) })
		}
	}
	switch {
	case head == none || head == partOfRun:
	case s.dst.at == dstSetup && head == setup:
		take("CONFIG, PONG", func(s *state) { s.session().reply(pong) })
	case s.dst.at == dstSetup && head == packaged:
		take("PACKAGED", func(s *state) { s.dst.at = dstListening })
	case s.dst.at == dstLoaded && head == run && s.dst.fate == fateOpen:
		take("run: fate open -> ran", func(s *state) { s.dst.fate, s.dst.at = fateRan, dstStart })
	case s.dst.at == dstLoaded && head == run:
		take("run: ErrGivenUp", func(s *state) {}) // giveUp goes on
	case s.dst.at == dstGivenUp && head == run && b.m == runAfterFailed:
		take("run, after FAILED", func(s *state) { s.dst.at = dstStart })
	case s.dst.at == dstRunning && head == complete:
		take("complete: settle, SHUT 0", func(s *state) { s.dst.whole = true; s.sayShut(false) })
	case s.dst.at == dstShut && head == end:
		take("END", func(s *state) { s.dstReturns(dstCompleted) })
	case s.dst.at == dstHandshake && head == resume:
		take("resume", func(s *state) { s.answerResume(b.m) })
	case head == cancel && s.dst.fate != fateRan:
		take("CANCEL", func(s *state) { s.dst.fate = fateGivenUp; s.dstReturns(dstFailed) })
	case s.dst.at == dstShut || s.dst.at == dstGivenUp:
		take("drain", func(s *state) {})
	default:
		take("protocolError: "+head.String(), func(s *state) { s.closeSession(); s.afterBreak() })
	}
}

func (s *state) sayShut(leave bool) {
	s.session().reply(shut)
	s.dst.at = dstShut
	if leave {
		s.dstReturns(dstCompleted)
	}
}

// answerResume is (*inbound).resume.
func (s *state) answerResume(m mutation) {
	switch {
	case s.dst.fate == fateGivenUp:
		s.session().reply(failed)
		s.dst.at = dstGivenUp
	case s.dst.fate == fateRan && m != ackLies:
		s.session().reply(ackRunning)
		s.dst.at = dstRunning
	default:
		s.session().reply(ackLoaded)
		s.dst.at = dstLoaded
		if s.dst.fate == fateRan { // the mutation
			s.dst.at = dstRunning
		}
	}
}

// broken ends a session.
func (b *builder) broken() {
	b.do("destination: broken", func(s *state) { s.closeSession(); s.afterBreak() })
	if b.m == eofIsHeard && b.s.dst.at == dstShut {
		b.do("destination: end of file, taken for END", func(s *state) { s.dstReturns(dstCompleted) })
	}
}

// afterBreak is what recoverable decides.
func (s *state) afterBreak() {
	if s.dst.at <= dstListening {
		s.dstReturns(dstFailed)
		return
	}
	s.dst.at = dstAgain
}
