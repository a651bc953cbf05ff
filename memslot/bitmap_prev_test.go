package memslot

import "testing"

func TestPrevClearFindsWhatALookAtEachBitFinds(t *testing.T) {
	const n = 200
	m := NewBitmap(n)
	for i := range uint64(n) {
		if i%3 != 0 && i != 64 && i != 127 || i > 64 && i < 190 {
			m.Set(i)
		}
	}
	for end := range uint64(n + 70) {
		want, found := uint64(0), false
		for i := range min(end, n) {
			if !m.Test(i) {
				want, found = i, true
			}
		}
		if got, ok := m.PrevClear(end); got != want || ok != found {
			t.Errorf("before %d: %d, %v, want %d, %v", end, got, ok, want, found)
		}
	}
	m.SetRange(0, n)
	if i, ok := m.PrevClear(n); ok {
		t.Errorf("bit %d is clear in a bitmap that is full", i)
	}
}
