package migration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"microvm/migration/uffd"
	"microvm/migration/wire"
)

// A probe asks what would stop a migration, and is no migration: a channel of
// role probe, CONFIG as a migration sends it, and FINDINGS in answer. Anybody
// may ask who could also migrate, so it must cost little: few are answered at a
// time, within a deadline, and nothing is built or reserved.

// A Checker looks at the machine that a source's Config describes, and says what
// its Builder would refuse, all reasons at once and what is well besides. It
// builds nothing, and leaves nothing behind. It is called from several goroutines.
type Checker func(ctx context.Context, config []byte) []Finding

const (
	// maxProbes bounds how many are answered at a time: each may send a CONFIG
	// of 1 MiB.
	maxProbes = 4
	// checkTimeout bounds the answering of one.
	checkTimeout = 5 * time.Second
)

// answers is what an acceptor needs for probes.
type answers struct {
	program string
	check   Checker       // nil: none are answered
	room    chan struct{} // of maxProbes
}

func newAnswers(program string, check Checker) answers {
	return answers{program: program, check: check, room: make(chan struct{}, maxProbes)}
}

// probed answers a probe on c, whose deadline is that of its hello, and closes
// it unless there is an error.
func (a *acceptor) probed(c net.Conn, h wire.Hello) error {
	if err := a.judgeProbe(h); err != nil {
		refuse(c, err)
		return err
	}
	select {
	case a.answers.room <- struct{}{}:
		defer func() { <-a.answers.room }()
	default:
		err := fmt.Errorf("%d probes are being answered already; ask again", maxProbes)
		refuse(c, err)
		return err
	}
	if _, err := c.Write(wire.Welcome{Version: wire.Version}.Append(nil)); err != nil {
		return err
	}
	config, err := readQuestion(c)
	if err != nil {
		_, _ = c.Write(wire.AppendFailed(nil, wire.Failed{Code: wire.FailureProtocol, Text: err.Error()}))
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	found := wire.Findings{Program: a.answers.program, Findings: a.findings(ctx, h, config)}
	c.SetDeadline(time.Now().Add(greetTimeout))
	if _, err := c.Write(wire.AppendFindings(nil, found)); err != nil {
		return err
	}
	a.log.Info("a probe was answered: somebody asks what would stop a migration", "peer", peerName(c), "findings", len(found.Findings))
	hangUp(c)
	return nil
}

// judgeProbe says why a probe is not wanted.
func (a *acceptor) judgeProbe(h wire.Hello) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case a.answers.check == nil:
		return errors.New("this side answers no probes")
	case h.Index != 0 || h.Resume:
		return fmt.Errorf("probe channel %d, resume %t: a probe is of no migration", h.Index, h.Resume)
	case a.begun || a.half != nil:
		return errUnderWay
	}
	return nil
}

// readQuestion reads a CONFIG, and nothing else.
func readQuestion(c net.Conn) ([]byte, error) {
	h, err := wire.ReadHeader(c)
	if err != nil {
		return nil, fmt.Errorf("probe channel: %w", err)
	}
	if h.Type != wire.TypeConfig {
		return nil, protocolError(h.Type.String(), "on a probe channel, which carries CONFIG alone")
	}
	body, err := wire.ReadBody(c, h)
	if err != nil {
		return nil, fmt.Errorf("probe channel: CONFIG: %w", err)
	}
	return body, nil
}

// findings is what this side has to say to a CONFIG.
func (a *acceptor) findings(ctx context.Context, h wire.Hello, config []byte) []Finding {
	found := []Finding{judged(findConnections, a.judgeMulti(h), fmt.Sprintf("%d for memory, at most %d are taken", max(1, h.Multi), a.limit))}
	fd, err := uffd.Open()
	if err == nil {
		err = fd.Close()
	}
	found = append(found, judged(findUserfaultfd, err, "the destination can fetch pages as they are touched"))
	c, err := wire.DecodeConfig(config)
	found = append(found, judged(findSettings, err, "the destination knows all that the migration asks for"))
	if err != nil {
		return found
	}
	return append(found, a.answers.check(ctx, c.Machine)...)
}

// judged is a finding: err is why it is a bad one.
func judged(what string, err error, good string) Finding {
	if err != nil {
		return Finding{What: what, Status: FindingMissing, Text: err.Error()}
	}
	return Finding{What: what, Status: FindingOK, Text: good}
}
