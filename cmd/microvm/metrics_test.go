package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"microvm/vmm"
)

// waiting has a process that waits for a VM called name.
func waiting(t *testing.T, name string) {
	t.Helper()
	dir, err := vmm.OpenStateDir(name)
	if err != nil {
		t.Fatal(err)
	}
	server, err := vmm.Listen(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(vmm.ExitStatus{}) })
}

// silent has a process whose socket takes connections, and that says nothing.
func silent(t *testing.T, name string) {
	t.Helper()
	dir, err := vmm.OpenStateDir(name)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", vmm.Instance{Path: dir.Path}.APISocket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); dir.Release(vmm.ExitStatus{}, nil) })
}

// One VM that hangs does not hide the others.
func TestAVMThatDoesNotAnswerIsDownAndTheOthersAreShown(t *testing.T) {
	// Not t.TempDir(): sockets have short paths.
	root, err := os.MkdirTemp("", "mv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	t.Setenv(vmm.StateDirEnv, root)
	waiting(t, "a")
	silent(t, "b")
	ctx, stop := context.WithCancel(t.Context())
	out, to := io.Pipe()
	served := make(chan error, 1)
	go func() {
		served <- serveMetrics(ctx, "127.0.0.1:0", to)
		to.Close()
	}()
	var line [64]byte
	n, err := out.Read(line[:])
	if err != nil {
		t.Fatal(err)
	}
	url := strings.TrimSpace(string(line[:n]))
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`microvm_up{vm="a"} 1`, `microvm_up{vm="b"} 0`, `microvm_state{state="incoming",vm="a"} 1`} {
		if !strings.Contains(string(text), want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
	if strings.Count(string(text), `vm="b"`) != 1 {
		t.Errorf("more of b:\n%s", text)
	}
	stop()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// What a VM says cannot be taken for another's, nor spoil what others say.
func TestMetricsOfSeveralVMs(t *testing.T) {
	gauge := func(name string, labels ...string) *dto.MetricFamily {
		m := &dto.Metric{Gauge: &dto.Gauge{Value: new(1.0)}}
		for i := 0; i < len(labels); i += 2 {
			m.Label = append(m.Label, &dto.LabelPair{Name: &labels[i], Value: &labels[i+1]})
		}
		return &dto.MetricFamily{Name: &name, Type: dto.MetricType_GAUGE.Enum(), Metric: []*dto.Metric{m}}
	}
	all := families{}
	all.add("a", map[string]*dto.MetricFamily{"x": gauge("x", "vm", "z", "k", "v"), upName: gauge(upName, "vm", "z")})
	other := gauge("x")
	other.Type = dto.MetricType_COUNTER.Enum()
	all.add("b", map[string]*dto.MetricFamily{"x": other, "y": gauge("y")})
	all.add("c", nil)
	var out bytes.Buffer
	for _, f := range all.sorted() {
		for _, m := range f.Metric {
			out.WriteString(f.GetName())
			for _, l := range m.Label {
				out.WriteString(" " + l.GetName() + "=" + l.GetValue())
			}
			fmt.Fprintf(&out, " %v\n", m.GetGauge().GetValue())
		}
	}
	want := "microvm_up vm=a 1\nmicrovm_up vm=b 1\nmicrovm_up vm=c 0\nx k=v vm=a 1\ny vm=b 1\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}
