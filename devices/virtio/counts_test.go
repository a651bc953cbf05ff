package virtio

import (
	"errors"
	"testing"
	"time"
)

func TestTallyCountsRequestsByTheirTime(t *testing.T) {
	var tally Tally
	for _, c := range []struct {
		took   time.Duration
		err    error
		bucket int
	}{
		{0, nil, 0},
		{999 * time.Nanosecond, nil, 0},
		{time.Microsecond, nil, 1},
		{1023 * time.Microsecond, errors.New("failed"), 10},
		{1024 * time.Microsecond, nil, 11},
		{time.Hour, nil, latencyBuckets - 1},
		{-1, nil, -1}, // not measured
	} {
		before := tally.Counts("read")
		tally.Add(100, c.took, c.err)
		after := Counts{Requests: []RequestCounts{{Sort: "write"}, tally.Counts("read")}}.Of("read")
		want := before
		want.Requests++
		if c.err != nil {
			want.Errors++
		} else {
			want.Bytes += 100
		}
		if after.Requests != want.Requests || after.Errors != want.Errors || after.Bytes != want.Bytes {
			t.Errorf("%v: %+v, want %+v", c.took, after, want)
		}
		for i := range after.Latency {
			grown := after.Latency[i]
			if before.Latency != nil {
				grown -= before.Latency[i]
			}
			if (grown == 1) != (i == c.bucket) {
				t.Errorf("%v: bucket %d has grown by %d", c.took, i, grown)
			}
		}
	}
	if (&Tally{}).Counts("none").Latency != nil {
		t.Error("without requests there is a histogram")
	}
}
