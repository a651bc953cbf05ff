package vmm

import (
	"encoding/json"
	"net/http"

	"microvm/migration"
)

// loggedEvent is a MigrationEvent that has an event of the log alone.
type loggedEvent struct {
	Event json.RawMessage `json:"event"`
}

// logReader goes through the log of a migration for one client. The zero value
// reads nothing.
type logReader struct {
	events *migration.EventLog
	next   uint64
}

// reader begins at the migration's first event.
func (d *departure) reader(want answer) *logReader {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !want.log || want.once {
		return &logReader{}
	}
	return &logReader{events: d.events, next: 1}
}

// send hands out what is new, and gives a channel that is closed when there is
// more. However long that takes, the migration does not wait.
func (r *logReader) send(out func(json.RawMessage) error) (more <-chan struct{}, err error) {
	if r.events == nil {
		return nil, nil
	}
	events, more := r.events.Read(r.next)
	for _, e := range events {
		text, err := json.Marshal(e)
		if err != nil {
			return nil, err
		}
		if err := out(text); err != nil {
			return nil, err
		}
		r.next = e.Seq + 1
	}
	return more, nil
}

// getLog answers with the events that are there.
func (d *departure) getLog(w http.ResponseWriter, _ *http.Request) {
	if d.none() {
		writeError(w, errNoMigration)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	// The client may have gone; there is nobody to tell.
	_, _ = d.reader(answer{log: true}).send(func(e json.RawMessage) error {
		_, err := w.Write(append(e, '\n'))
		return err
	})
}
