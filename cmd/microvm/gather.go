package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"microvm/vmm"
	"microvm/vmm/client"
)

// scrapeEach is how long a VM may take to answer.
const scrapeEach = 2 * time.Second

// A gatherer asks all VMs of this user for their metrics.
type gatherer struct{ ctx context.Context }

// Gather implements prometheus.Gatherer. A VM that does not answer is no error:
// its microvm_up says so.
func (g gatherer) Gather() ([]*dto.MetricFamily, error) {
	instances, err := vmm.Instances()
	if err != nil {
		return nil, err
	}
	instances = slices.DeleteFunc(instances, func(i vmm.Instance) bool { return !i.Running })
	answers := make([]map[string]*dto.MetricFamily, len(instances))
	var asking sync.WaitGroup
	for n, i := range instances {
		asking.Go(func() {
			var err error
			if answers[n], err = scrapeVM(g.ctx, i); err != nil {
				slog.Warn("no metrics", "vm", i.Name, "err", err)
			}
		})
	}
	asking.Wait()
	all := families{}
	for n, i := range instances {
		all.add(i.Name, answers[n])
	}
	return all.sorted(), nil
}

// scrapeVM asks one.
func scrapeVM(ctx context.Context, i vmm.Instance) (map[string]*dto.MetricFamily, error) {
	ctx, cancel := context.WithTimeout(ctx, scrapeEach)
	defer cancel()
	text, err := client.New(i).Metrics(ctx)
	if err != nil {
		return nil, err
	}
	p := expfmt.NewTextParser(model.LegacyValidation)
	return p.TextToMetricFamilies(bytes.NewReader(text))
}

const (
	upName  = "microvm_up"
	vmLabel = "vm"
)

// families are metrics of several VMs, by name.
type families map[string]*dto.MetricFamily

// add takes in what a VM has answered, nil if it has not.
func (f families) add(vm string, answer map[string]*dto.MetricFamily) {
	up := 0.0
	if answer != nil {
		up = 1
	}
	f.merge(vm, &dto.MetricFamily{
		Name: new(upName), Help: new("1 if the VM's process has answered."), Type: dto.MetricType_GAUGE.Enum(),
		Metric: []*dto.Metric{{Gauge: &dto.Gauge{Value: &up}}},
	})
	for name, family := range answer {
		if name != upName { // which is ours
			f.merge(vm, family)
		}
	}
}

// merge takes in one name's. A VM whose program is of another version may mean
// something else by it: that is left out.
func (f families) merge(vm string, family *dto.MetricFamily) {
	name := family.GetName()
	sum := f[name]
	if sum == nil {
		sum = &dto.MetricFamily{Name: &name, Help: family.Help, Type: family.Type}
		f[name] = sum
	}
	if sum.GetType() != family.GetType() {
		slog.Warn("a metric is left out", "vm", vm, "name", name, "err", fmt.Sprintf("it is a %v there, and a %v elsewhere", family.GetType(), sum.GetType()))
		return
	}
	for _, m := range family.Metric {
		m.Label = slices.DeleteFunc(m.Label, func(l *dto.LabelPair) bool { return l.GetName() == vmLabel })
		m.Label = append(m.Label, &dto.LabelPair{Name: new(vmLabel), Value: &vm})
		sum.Metric = append(sum.Metric, m)
	}
}

// sorted gives them by name.
func (f families) sorted() []*dto.MetricFamily {
	list := []*dto.MetricFamily{}
	for _, name := range slices.Sorted(maps.Keys(f)) {
		list = append(list, f[name])
	}
	return list
}
