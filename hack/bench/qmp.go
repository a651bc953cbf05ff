package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"time"
)

// qmp is a connection to QEMU's monitor.
type qmp struct {
	conn net.Conn
	in   *bufio.Reader
}

// dialQMP connects to a monitor that is about to listen, and makes it take commands.
func dialQMP(path string) (*qmp, error) {
	var q qmp
	err := within("connect to QEMU's monitor", func() (bool, error) {
		c, err := net.Dial("unix", path)
		if err == nil {
			q = qmp{c, bufio.NewReader(c)}
		}
		return err == nil, nil
	})
	if err != nil {
		return nil, err
	}
	if err := q.do("qmp_capabilities", nil, nil); err != nil {
		q.conn.Close()
		return nil, err
	}
	return &q, nil
}

// do has a command done, and its answer put into result unless that is nil.
func (q *qmp) do(command string, arguments, result any) error {
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	q.conn.SetDeadline(time.Now().Add(waitLimit))
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return fmt.Errorf("QEMU: %s: %w", command, err)
	}
	for {
		line, err := q.in.ReadBytes('\n')
		if err != nil {
			return fmt.Errorf("QEMU: %s: %w", command, err)
		}
		var answer struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(line, &answer); err != nil {
			return fmt.Errorf("QEMU: %s: %w", command, err)
		}
		switch {
		case answer.Error != nil:
			return fmt.Errorf("QEMU: %s: %s", command, answer.Error.Desc)
		case answer.Return == nil: // the greeting, or an event
		case result == nil:
			return nil
		default:
			return json.Unmarshal(answer.Return, result)
		}
	}
}

// capabilities switches capabilities of migration on.
func (q *qmp) capabilities(names ...string) error {
	var list []map[string]any
	for _, n := range names {
		list = append(list, map[string]any{"capability": n, "state": true})
	}
	return q.do("migrate-set-capabilities", map[string]any{"capabilities": list}, nil)
}

// migrationInfo is what query-migrate says. Times are in milliseconds.
type migrationInfo struct {
	Status    string  `json:"status"`
	ErrorDesc string  `json:"error-desc"`
	TotalTime float64 `json:"total-time"`
	Downtime  float64 `json:"downtime"`
	Blocktime float64 `json:"postcopy-blocktime"`
	RAM       struct {
		Requests    float64 `json:"postcopy-requests"`
		Transferred float64 `json:"transferred"`
	} `json:"ram"`
}

func (q *qmp) migration() (m migrationInfo, err error) {
	err = q.do("query-migrate", nil, &m)
	return m, err
}
