package memslot

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// TestBitmapAgainstBools does everything to a bitmap and to a slice of bools.
func TestBitmapAgainstBools(t *testing.T) {
	for _, n := range []uint64{1, 63, 64, 65, 128, 1000} {
		r := rand.New(rand.NewPCG(n, 1))
		m, want := NewBitmap(n), make([]bool, n)
		for range 2000 {
			i := r.Uint64N(n)
			switch r.IntN(5) {
			case 0:
				m.Set(i)
				want[i] = true
			case 1:
				m.Clear(i)
				want[i] = false
			case 2:
				if got := m.TestAndSet(i); got != want[i] {
					t.Fatalf("%d bits: TestAndSet(%d) = %v, want %v", n, i, got, want[i])
				}
				want[i] = true
			case 3, 4:
				// Also past the end, and so long that the sum wraps.
				length := []uint64{r.Uint64N(n + 1), n + 70, ^uint64(0)}[r.IntN(3)]
				set := r.IntN(2) == 0
				if set {
					m.SetRange(i, length)
				} else {
					m.ClearRange(i, length)
				}
				for j := i; j < n && j-i < length; j++ {
					want[j] = set
				}
			}
			compareBits(t, m, want, r.Uint64N(n+2))
		}
	}
}

func compareBits(t *testing.T, m *Bitmap, want []bool, from uint64) {
	t.Helper()
	var count uint64
	for i, set := range want {
		if m.Test(uint64(i)) != set {
			t.Fatalf("%d bits: bit %d is %v, want %v", len(want), i, !set, set)
		}
		if set {
			count++
		}
	}
	if got := m.Count(); got != count {
		t.Fatalf("%d bits: count %d, want %d", len(want), got, count)
	}
	next := func(set bool) (uint64, bool) {
		for i := from; i < uint64(len(want)); i++ {
			if want[i] == set {
				return i, true
			}
		}
		return 0, false
	}
	wantSet, okSet := next(true)
	if got, ok := m.NextSet(from); ok != okSet || ok && got != wantSet {
		t.Fatalf("%d bits: NextSet(%d) = %d, %v, want %d, %v", len(want), from, got, ok, wantSet, okSet)
	}
	wantClear, okClear := next(false)
	if got, ok := m.NextClear(from); ok != okClear || ok && got != wantClear {
		t.Fatalf("%d bits: NextClear(%d) = %d, %v, want %d, %v", len(want), from, got, ok, wantClear, okClear)
	}
}

func TestBitmapPastTheEnd(t *testing.T) {
	m := NewBitmap(70)
	m.SetRange(0, 70)
	if m.Test(70) || m.Test(1<<40) {
		t.Error("a bit past the end is set")
	}
	m.SetRange(100, 5)
	m.ClearRange(70, 1)
	if m.Count() != 70 {
		t.Errorf("count %d, want 70", m.Count())
	}
	defer func() {
		if recover() == nil {
			t.Error("Set past the end did not panic")
		}
	}()
	m.Set(70)
}

// TestBitmapLosesNoBit has goroutines set neighbouring bits of the same words.
func TestBitmapLosesNoBit(t *testing.T) {
	const n, writers = 1 << 12, 8
	m := NewBitmap(n)
	var wg sync.WaitGroup
	for w := range uint64(writers) {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				m.Set(i)
			}
		})
	}
	wg.Wait()
	if i, ok := m.NextClear(0); ok {
		t.Errorf("bit %d is lost", i)
	}
}
