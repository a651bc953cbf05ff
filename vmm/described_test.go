package vmm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"microvm/migration"
)

// everyDevice is a VM that has one of each kind that needs nothing of its host.
func everyDevice(t *testing.T, cmdline string) Config {
	t.Helper()
	image := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	c := tinyConfig(cmdline)
	c.RNG, c.VirtioConsole, c.Balloon, c.Vsock = true, true, &BalloonConfig{}, &VsockConfig{CID: 3}
	c.Disks = []DiskConfig{{Path: image}}
	return c
}

// A program that was written after the description works: whatever a VM
// answers, in its life and on its way to another place, is as described; and so
// is what it shows to Prometheus.
func TestWhatAVMAnswersIsAsDescribed(t *testing.T) {
	config := everyDevice(t, "beat=50 fill=1 work=touch order=rand mem=24 rate=500")
	call, vm, served := serve(t, config)
	hasBeaten(t, config.Name) // its memory is filled
	d := described(t, newAPI())
	do := func(method, path string, body any, want int) reply {
		t.Helper()
		r := call.do(t, method, path, body)
		if r.status != want {
			t.Errorf("%s %s: %d %s, want %d", method, path, r.status, r.body, want)
		}
		d.fits(t, method, path, r)
		return r
	}
	for _, c := range []struct {
		method, path string
		body         any
		want         int
	}{
		{"GET", "/v1/openapi.json", nil, 200},
		{"GET", "/v1/vm", nil, 200},
		{"GET", "/v1/vm/stats", nil, 200},
		{"GET", "/v1/metrics", nil, 200},
		{"PUT", "/v1/vm/pause", nil, 200},
		{"PUT", "/v1/vm/resume", nil, 200},
		{"PUT", "/v1/vm/grow", nil, 200},
		{"GET", "/v1/vm/balloon", nil, 200},
		{"PUT", "/v1/vm/balloon", BalloonRequest{1 << 20}, 200},
		{"PUT", "/v1/vm/balloon", BalloonRequest{1 << 62}, 400},
		{"PUT", "/v1/vm/balloon", map[string]int{"bytes": 1}, 400},
		{"PUT", "/v1/vm/console/size", ConsoleSize{80, 24}, 200},
		{"PUT", "/v1/vm/console/size", ConsoleSize{}, 400},
		{"PUT", "/v1/vm/stop", StopRequest{Timeout: 1}, 504},
		{"GET", "/v1/vm/migration", nil, 404},
		{"GET", "/v1/vm/migration/events", nil, 404},
		{"GET", "/v1/vm/migration/log", nil, 404},
		{"DELETE", "/v1/vm/migration", nil, 404},
		{"POST", "/v1/vm/migration/resume", ResumeMigrationRequest{Recover: 1}, 404},
		{"POST", "/v1/vm/migration/take-back", TakeBackRequest{}, 404},
		{"POST", "/v1/vm/migration", MigrateRequest{Destination: "nowhere"}, 400},
		{"POST", "/v1/vm/migration", MigrateRequest{Destination: "unix:" + t.TempDir() + "/none", Log: true}, 200},
		{"GET", "/v1/vm/migration", nil, 200},
		{"GET", "/v1/vm/migration/events?log=true", nil, 200},
		{"GET", "/v1/vm/migration/log", nil, 200},
		{"DELETE", "/v1/vm/migration", nil, 409},
		{"POST", "/v1/vm/migration/resume", ResumeMigrationRequest{Recover: 1}, 409},
		{"POST", "/v1/vm/migration/take-back", TakeBackRequest{}, 409},
		{"POST", "/v1/vm/migration/check", MigrateRequest{Destination: "unix:" + t.TempDir() + "/none"}, 200},
		{"POST", "/v1/vm/migration/check", MigrateRequest{Destination: "fd:1,2"}, 400},
		{"GET", "/v1/nothing", nil, 404},
		{"PATCH", "/v1/vm", nil, 405},
	} {
		do(c.method, c.path, c.body, c.want)
	}
	shown := map[string]bool{}
	for device, kinds := range unnamed(vm) {
		t.Errorf("Prometheus is not shown %s of %s", kinds, device)
	}

	there, address := arrive(t, config)
	watched := make(chan reply, 1)
	go func() {
		watched <- call.do(t, "POST", "/v1/vm/migration", MigrateRequest{
			Destination: address, Mode: "postcopy", Log: true, Verify: true, Checksum: true, Connections: 2, PushBandwidth: 16 << 20,
		})
	}()
	// While it is on both sides.
	await(t, "the postcopy of the VM", func() bool { return vm.State() == StatePostcopy })
	await(t, "a fault in the metrics", func() bool {
		return strings.Contains(call.do(t, "GET", "/v1/metrics", nil).body, "microvm_migration_fault_duration_seconds_count")
	})
	do("GET", "/v1/vm/migration", nil, 200)
	addNames(shown, do("GET", "/v1/metrics", nil, 200).body)
	addNames(shown, there.do(t, "GET", "/v1/metrics", nil).body)
	moved := <-watched
	d.fits(t, "POST", "/v1/vm/migration", moved)
	last := into[MigrationEvent](t, reply{body: moved.body[strings.LastIndex(strings.TrimSpace(moved.body), "\n")+1:]})
	if last.Report == nil || last.Report.Result != migration.ResultCompleted {
		t.Errorf("it has not moved as it was to: %+v", last)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	d.fits(t, "GET", "/v1/vm", there.do(t, "GET", "/v1/vm", nil))
	d.fits(t, "PUT", "/v1/vm/stop", there.do(t, "PUT", "/v1/vm/stop", StopRequest{Force: true}))
	documentedMetrics(t, shown)
}

// hasBeaten returns when a guest has printed that it beats.
func hasBeaten(t *testing.T, name string) {
	t.Helper()
	i, err := FindInstance(name)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", i.ConsoleSocket())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(conn)
	for in.Scan() {
		if strings.HasPrefix(in.Text(), "beat ") {
			return
		}
	}
	t.Fatal(in.Err())
}

// arrive waits for a VM under another name, in the way of microvm receive.
func arrive(t *testing.T, config Config) (there caller, address string) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	a, err := NewArrival(ArrivalOptions{Name: "there", Logger: quiet, Disks: []string{config.Disks[0].Path}})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		received := make(chan error, 1)
		go func() { received <- a.Receive(ctx, ln) }()
		select {
		case vm := <-a.Runs():
			ended <- errors.Join(a.Server.Serve(ctx, vm, func() error { return nil }), <-received)
		case err := <-received:
			ended <- err
		}
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return callTo(a.Server.dir), fmt.Sprintf("tcp:%v", ln.Addr())
}

// unnamed are what devices count and deviceMetrics has no name for.
func unnamed(vm *VM) map[string][]string {
	missing := map[string][]string{}
	for _, d := range vm.VirtioDevices() {
		for _, names := range []map[string]uint64{d.Counts.Counters, d.Counts.Gauges} {
			for name := range names {
				if _, ok := deviceMetrics[name]; !ok && !strings.HasPrefix(name, "guest_") {
					missing[d.ID] = append(missing[d.ID], name)
				}
			}
		}
	}
	return missing
}

// addNames adds the names of metrics in Prometheus' text format.
func addNames(names map[string]bool, text string) {
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) \w+$`).FindAllStringSubmatch(text, -1) {
		names[m[1]] = true
	}
}

// documentedMetrics compares names with the table in docs/api.md.
func documentedMetrics(t *testing.T, shown map[string]bool) {
	t.Helper()
	// What only a network card shows, for which a test needs to be root; what a
	// guest with drivers brings about; and what only microvm metrics shows.
	for _, m := range deviceMetrics {
		if name := regexp.MustCompile(`"(microvm_net_\w+)"`).FindStringSubmatch(m.desc.String()); name != nil {
			shown[name[1]] = true
		}
	}
	shown["microvm_device_request_duration_seconds"], shown["microvm_up"] = true, true
	text, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(microvm_\\w+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[m[1]] = true
	}
	if !maps.Equal(documented, shown) {
		t.Errorf("docs/api.md has %v\nshown are      %v", slices.Sorted(maps.Keys(documented)), slices.Sorted(maps.Keys(shown)))
	}
}

// A program and the command line end alike.
func TestProblemsHaveTheExitStatusOfTheCommand(t *testing.T) {
	call, vm, served := serve(t, tinyConfig(""))
	problemOf := func(method, path string, body any) problem {
		t.Helper()
		r := call.do(t, method, path, body)
		p := into[problem](t, r)
		if r.kind != problemType || p.Status != r.status || p.Type != problemURN+p.Code || p.Detail == "" || p.Detail != p.Message || p.Title == "" {
			t.Errorf("%s %s: %+v", method, path, r)
		}
		return p
	}
	if p := problemOf("PUT", "/v1/vm/stop", StopRequest{Timeout: 1}); p.ExitCode != ExitTimeout || p.ExitName != "timeout" {
		t.Errorf("%+v", p)
	}
	if err := vm.Depart(); err != nil {
		t.Fatal(err)
	}
	if p := problemOf("PUT", "/v1/vm/pause", nil); p.Code != CodeWrongState || p.ExitCode != ExitError || p.ExitName != "error" {
		t.Errorf("%+v", p)
	}
	if p := problemOf("POST", "/v1/vm/migration", MigrateRequest{Destination: "tcp:127.0.0.1:1"}); p.Code != CodeWrongState || p.ExitCode != ExitRefused || p.ExitName != "refused" {
		t.Errorf("%+v", p)
	}
	if r := call.do(t, "POST", "/v1/vm/stats", nil); r.status != http.StatusMethodNotAllowed || r.header.Get("Allow") != "GET" {
		t.Errorf("%+v", r)
	}
	vm.Stop()
	<-served
	// A client of before finds what it knows.
	text, err := json.Marshal(problem{Detail: "d", APIError: APIError{Message: "d", Code: CodeTimeout}})
	if err != nil || !strings.Contains(string(text), `"error":"d"`) || !strings.Contains(string(text), `"code":"timeout"`) {
		t.Errorf("%s, %v", text, err)
	}
}
