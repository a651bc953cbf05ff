package migration

import (
	"strings"
	"testing"

	"microvm/migration/wire"
)

// Strangers are told why they are refused, if they say anything, and keep
// nobody else waiting.
func TestStrangersDoNotKeepAMigrationOut(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	dial(t, r.addr) // says nothing, and stays
	dial(t, r.addr).Write(helloOf(newID(), wire.RoleMain).Append(nil)[:20])

	c := dial(t, r.addr)
	c.Write([]byte("GET / HTTP/1.1\r\nHost: microvm\r\n\r\n"))
	w, err := wire.ReadWelcome(c)
	if err != nil || w.Version != 0 || !strings.Contains(w.Refusal, "GET / HT") {
		t.Errorf("a web browser is answered %+v, %v", w, err)
	}

	for name, c := range map[string]struct {
		change func(*wire.Hello)
		want   string
	}{
		"newer":            {func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 2, 9 }, "versions 2 to 9"},
		"older":            {func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 0, 0 }, "versions 0 to 0"},
		"upside down":      {func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 9, 2 }, "versions 9 to 2"},
		"main 1":           {func(h *wire.Hello) { h.Index = 1 }, "main channel 1"},
		"role 9":           {func(h *wire.Hello) { h.Role = 9 }, "role 9"},
		"resuming nothing": {func(h *wire.Hello) { h.Resume = true }, "no migration of that id"},
		"urgent, first":    {func(h *wire.Hello) { h.Role = wire.RoleUrgent }, "without its main channel"},
	} {
		h := helloOf(newID(), wire.RoleMain)
		c.change(&h)
		if _, w := open(t, r.addr, h); w.Version != 0 || !strings.Contains(w.Refusal, c.want) {
			t.Errorf("%s: answered %+v, want a refusal with %q", name, w, c.want)
		}
	}

	s := send(t, l, r.addr, Options{Verify: true})
	if err := s.run(); err != nil {
		t.Errorf("the migration among all these: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("the destination among all these: %v", err)
	}
}

func TestASecondSourceIsRefusedAndTheFirstGoesOn(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	id := newID()
	refused := func(h wire.Hello, want string) {
		t.Helper()
		if _, w := open(t, r.addr, h); w.Version != 0 || !strings.Contains(w.Refusal, want) {
			t.Errorf("answered %+v, want a refusal with %q", w, want)
		}
	}
	if _, w := open(t, r.addr, helloOf(id, wire.RoleMain)); w.Version != wire.Version {
		t.Fatalf("main refused: %s", w.Refusal)
	}
	refused(helloOf(newID(), wire.RoleMain), "already")
	refused(helloOf(id, wire.RoleMain), "already")
	refused(helloOf(newID(), wire.RoleUrgent), "another migration")
	if _, w := open(t, r.addr, helloOf(id, wire.RoleUrgent)); w.Version != wire.Version {
		t.Fatalf("urgent refused: %s", w.Refusal)
	}
	refused(helloOf(id, wire.RoleUrgent), "a second one")

	// The real thing, by its public face.
	s := send(t, l, r.addr, Options{})
	says(t, s.run(), "migration refused", "already")
	s.stayed()
}
