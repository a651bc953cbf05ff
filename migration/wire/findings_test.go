package wire

import (
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var someFindings = Findings{Program: "v1.2.3", Findings: []Finding{
	{What: "memory", Status: FindingMissing, Text: "the guest has 512 MiB, this host has 100 MiB available"},
	{What: "cpu", Status: FindingOK, Text: `"all" <of> it`},
}}

func FuzzFindings(f *testing.F) {
	f.Add(AppendFindings(nil, someFindings)[HeaderSize:])
	f.Add([]byte(`{"program":"\u001b[2J","findings":[{"what":"cpu","status":"warning","text":"a\nb","more":[1]}]}`))
	f.Add([]byte(`{"findings":[{"what":"../x","status":"ok"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var x Findings
		var err error
		if n := allocated(func() { x, err = DecodeFindings(b) }); n > 1<<20+64*uint64(len(b)) {
			t.Errorf("%d bytes made the decoder allocate %d", len(b), n)
		}
		if err != nil {
			return
		}
		for _, one := range append(x.Findings, Finding{Text: x.Program}) {
			if len(one.Text) > MaxText || !utf8.ValidString(one.Text) || strings.ContainsAny(one.Text, "\n\r\x1b") {
				t.Errorf("the text %q is for a terminal", one.Text)
			}
		}
		message := AppendFindings(nil, x)
		if len(message) > HeaderSize+MaxReturnBody {
			t.Fatalf("a message of %d bytes", len(message))
		}
		y, err := DecodeFindings(message[HeaderSize:])
		if err != nil {
			t.Fatalf("encoded and decoded again: %v", err)
		}
		if len(b) < MaxReturnBody/4 && (y.Program != x.Program || len(y.Findings) != len(x.Findings)) {
			t.Errorf("decoded %+v, encoded and decoded again %+v", x, y)
		}
	})
}

func TestFindingsFitAMessageAndTheBadOnesComeFirst(t *testing.T) {
	if got, err := DecodeFindings(AppendFindings(nil, someFindings)[HeaderSize:]); err != nil || !reflect.DeepEqual(got, someFindings) {
		t.Errorf("%+v, %v; want %+v", got, err, someFindings)
	}
	var many Findings
	for range 3 * MaxFindings {
		many.Findings = append(many.Findings, Finding{"cpu", FindingOK, strings.Repeat(`"`, 2*MaxText)})
	}
	many.Findings = append(many.Findings, Finding{"disk", FindingMissing, "no such file"})
	message := AppendFindings([]byte("before"), many)
	got, err := DecodeFindings(message[len("before")+HeaderSize:])
	if err != nil || len(message) > MaxReturnBody+100 {
		t.Fatalf("%d bytes: %v", len(message), err)
	}
	if got.Findings[0].What != "disk" || len(got.Findings) < 10 {
		t.Errorf("%d findings, the first is %+v", len(got.Findings), got.Findings[0])
	}
}

func TestFindingsThatMakeNoSenseAreRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"findings":[{"what":"cpu","status":"good"}]}`: `status "good"`,
		`{"findings":[{"what":"c p u","status":"ok"}]}`: "has to be a word",
		`{"findings":[{"what":"","status":"ok"}]}`:      "has to be a word",
		`{"findings":3}`: "FINDINGS",
		`{"findings":[` + strings.Repeat(`{},`, 64) + `{}]}`: "65 findings",
	} {
		if _, err := DecodeFindings([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %q", text, err, want)
		}
	}
}
