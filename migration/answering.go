package migration

import (
	"time"

	"microvm/migration/wire"
)

// timed is pages, with the time noted that it takes if it sends any. It is
// called as soon as the request is read.
func (a *answerer) timed(req wire.ReqPages, took *histogram) error {
	began, sent := time.Now(), a.sent
	err := a.pages(req)
	if a.sent != sent {
		took.add(time.Since(began))
	}
	return err
}

// waits puts together what both sides know of the guest's waits for pages.
func (s *Source) waits(r *stats) *Waits {
	w := &Waits{Faults: r.Faults, BlocktimeNS: r.BlocktimeNS, VCPUBlocktimeNS: r.VCPUBlocktimeNS, DeviceBlocktimeNS: r.DeviceBlocktimeNS}
	w.Faults.Phases.SourceP50NS = int64(s.answering.quantile(0.50))
	w.Faults.Phases.SourceP99NS = int64(s.answering.quantile(0.99))
	return w
}
