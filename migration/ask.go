package migration

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"microvm/migration/wire"
)

// A Finding is one thing that was looked at to see whether a VM can move: by
// the source, or by the destination that it asked.
type Finding = wire.Finding

// What a Finding's Status says.
const (
	FindingOK      = wire.FindingOK
	FindingWarning = wire.FindingWarning
	FindingMissing = wire.FindingMissing
)

// Names of findings (Finding.What) of this package; a machine has its own.
const (
	findReachable   = "reachable"
	findTLS         = "tls"
	findVersion     = "version"
	findRefused     = "refused" // for a reason that has no name of its own
	findConnections = "connections"
	findSettings    = "settings"
	findUserfaultfd = "userfaultfd"
)

// Outlook is what Check found.
type Outlook struct {
	Program  string    `json:"program"` // the destination's version, "" if it did not answer
	Findings []Finding `json:"findings"`
}

// Stops lists the findings for which the migration would be refused.
func (o Outlook) Stops() (stops []Finding) {
	for _, f := range o.Findings {
		if f.Status == FindingMissing {
			stops = append(stops, f)
		}
	}
	return stops
}

// Check asks the destination what would stop this migration, all reasons at
// once. Nothing moves, the VM is not paused, and the destination waits on for
// whoever migrates. That it cannot be reached, or refuses to talk, is a finding;
// the error is that this side cannot ask.
func (s *Source) Check(ctx context.Context) (Outlook, error) {
	dest := s.Destination()
	if dest.Network == networkFD {
		return Outlook{}, fmt.Errorf("%s: connections that were passed are good for one migration, and not for a question before; give an address that can be dialled", dest)
	}
	config, err := s.config()
	if err != nil {
		return Outlook{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*helloTimeout)
	defer cancel()
	hello := wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: s.id, Role: wire.RoleProbe, Multi: uint8(s.multi())}
	c, err := s.dialChannel(ctx, dest, hello)
	if err != nil {
		return Outlook{Findings: []Finding{unanswered(err)}}, nil
	}
	defer c.Close()
	found := []Finding{{What: findReachable, Status: FindingOK, Text: dest.String()}}
	if f, ok := tlsFinding(c, dest); ok {
		found = append(found, f)
	}
	answer, err := ask(ctx, c, config)
	if err != nil {
		f := Finding{What: findReachable, Status: FindingMissing, Text: fmt.Sprintf("%s does not answer the question: %v", dest, err)}
		return Outlook{Findings: append(found, f)}, nil
	}
	found = append(found, Finding{What: findVersion, Status: FindingOK, Text: fmt.Sprintf("both sides speak version %d of the stream", wire.Version)})
	for _, f := range answer.Findings {
		if f.Status != FindingOK {
			f.Text = "the destination says: " + f.Text
		}
		found = append(found, f)
	}
	return Outlook{Program: answer.Program, Findings: found}, nil
}

// ask asks on a channel that was accepted.
func ask(ctx context.Context, c net.Conn, config []byte) (wire.Findings, error) {
	c.SetDeadline(time.Now().Add(helloTimeout))
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	if _, err := c.Write(wire.Message(wire.TypeConfig, config)); err != nil {
		return wire.Findings{}, cause(ctx, err)
	}
	t, body, err := wire.ReadReturn(bufio.NewReader(c), make([]byte, wire.MaxReturnBody))
	if err != nil {
		return wire.Findings{}, cause(ctx, err)
	}
	switch t {
	case wire.ReturnFindings:
		return wire.DecodeFindings(body)
	case wire.ReturnFailed:
		return wire.Findings{}, errors.New(wire.DecodeFailed(body).Text)
	}
	return wire.Findings{}, protocolError(t.String(), "in answer to a probe")
}

// unanswered puts the reason for which there was nobody to ask by its name.
func unanswered(err error) Finding {
	f := Finding{What: findReachable, Status: FindingMissing, Text: err.Error()}
	var refused *RefusedError
	if !errors.As(err, &refused) {
		return f
	}
	f.What, f.Text = findRefused, refused.Reason
	switch {
	case strings.Contains(f.Text, "TLS: "), strings.Contains(f.Text, needsTLS):
		f.What = findTLS
	case strings.Contains(f.Text, unknownRole):
		f.What = findVersion
		f.Text += ": it is of an earlier version, which answers no questions; run the same version on both hosts"
	case strings.Contains(f.Text, otherVersions), strings.Contains(f.Text, "chose version"):
		f.What = findVersion
		f.Text += "; run the same version on both hosts"
	}
	return f
}

// soon is how long before its end a certificate is worth a word.
const soon = 14 * 24 * time.Hour

// tlsFinding says how a channel is protected; nothing of one that does not leave
// the host.
func tlsFinding(c net.Conn, dest Address) (Finding, bool) {
	s, ok := c.(*secureConn)
	switch {
	case !ok && dest.Network != "tcp":
		return Finding{}, false
	case !ok:
		return Finding{What: findTLS, Status: FindingWarning, Text: "none: whoever is on the way can read the guest's memory and change it; use --tls-dir on both sides, or a network that only your hosts are on"}, true
	}
	state := s.ConnectionState()
	cert := state.PeerCertificates[0] // verified: there is one
	f := Finding{What: findTLS, Status: FindingOK, Text: fmt.Sprintf("%s; the destination's certificate is for %q, until %s", tls.VersionName(state.Version), certNames(cert), cert.NotAfter.Format(time.DateTime))}
	if time.Until(cert.NotAfter) < soon {
		f.Status = FindingWarning
		f.Text += ", which is soon: renew it"
	}
	return f, true
}

// certNames are the names that a certificate is for.
func certNames(c *x509.Certificate) []string {
	names := append([]string(nil), c.DNSNames...)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	return names
}
