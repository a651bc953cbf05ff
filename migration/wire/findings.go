package wire

import (
	"bytes"
	"encoding/json"
)

// What a Finding's Status says.
const (
	FindingOK      = "ok"
	FindingWarning = "warning" // it would work, and be worse for it
	FindingMissing = "missing" // the migration would be refused for it
)

// MaxFindings is how many one FINDINGS may have.
const MaxFindings = 64

// A Finding is one thing that was looked at to see whether a VM can move.
type Finding struct {
	What   string `json:"what"`   // its name: one word, such as cpu or memory
	Status string `json:"status"` // FindingOK, FindingWarning or FindingMissing
	Text   string `json:"text"`   // what was found, and the remedy; at most MaxText bytes
}

// Findings is FINDINGS, a destination's answer to a probe, as JSON. Fields that
// this version does not know are passed over: nothing depends on them.
type Findings struct {
	Program  string    `json:"program"` // the destination's version, for people
	Findings []Finding `json:"findings"`
}

// AppendFindings appends a FINDINGS. Texts that are too long are clipped; of
// findings that do not fit a message the last are left out, good ones first.
func AppendFindings(b []byte, f Findings) []byte {
	list := make([]Finding, 0, len(f.Findings))
	for _, bad := range []bool{true, false} {
		for _, x := range f.Findings {
			if (x.Status == FindingMissing) == bad {
				list = append(list, x.cleaned())
			}
		}
	}
	f.Program, f.Findings = cleanText(f.Program), list[:min(len(list), MaxFindings)]
	for {
		var body bytes.Buffer
		e := json.NewEncoder(&body)
		e.SetEscapeHTML(false)
		// Strings alone, which cannot fail.
		_ = e.Encode(f)
		if n := len(f.Findings); body.Len() > MaxReturnBody && n > 0 {
			f.Findings = f.Findings[:n-1]
			continue
		}
		return seal(append(appendReturn(b, ReturnFindings, body.Len()), body.Bytes()...), len(b))
	}
}

// DecodeFindings decodes and checks the body of a FINDINGS. Its texts are fit for
// a terminal.
func DecodeFindings(b []byte) (Findings, error) {
	var f Findings
	if err := json.Unmarshal(b, &f); err != nil {
		return Findings{}, errorf("FINDINGS", "%v", err)
	}
	if len(f.Findings) > MaxFindings {
		return Findings{}, errorf("FINDINGS", "%d findings, at most %d allowed", len(f.Findings), MaxFindings)
	}
	f.Program = cleanText(f.Program)
	for i, x := range f.Findings {
		x = x.cleaned()
		switch {
		case x.Status != FindingOK && x.Status != FindingWarning && x.Status != FindingMissing:
			return Findings{}, errorf("FINDINGS", "status %.32q: has to be %s, %s or %s", x.Status, FindingOK, FindingWarning, FindingMissing)
		case !isWord(x.What):
			return Findings{}, errorf("FINDINGS", "name %.32q: has to be a word of at most %d letters", x.What, maxWord)
		}
		f.Findings[i] = x
	}
	return f, nil
}

func (f Finding) cleaned() Finding {
	f.Text = cleanText(f.Text)
	return f
}

// cleanText is at most MaxText bytes, fit for a terminal.
func cleanText(s string) string { return printable([]byte(clip(s))) }

const maxWord = 32

// isWord tells whether a name is one word of lower-case letters and hyphens.
func isWord(s string) bool {
	for _, r := range []byte(s) {
		if (r < 'a' || r > 'z') && r != '-' {
			return false
		}
	}
	return s != "" && len(s) <= maxWord
}
