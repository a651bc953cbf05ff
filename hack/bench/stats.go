package main

import "slices"

// median gives the middle of values, the mean of the two middle ones if there is no one middle; 0 of none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// spread is a median with what lies around it.
type spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func spreadOf(values []float64) *spread {
	if len(values) == 0 {
		return nil
	}
	return &spread{median(values), slices.Min(values), slices.Max(values)}
}

// ratios divides pair by pair. A pair of which one half is missing or zero gives none.
func ratios(pairs []pair, get string) []float64 {
	var out []float64
	for _, p := range pairs {
		a, okA := p.Ours[get]
		b, okB := p.QEMU[get]
		if okA && okB && b != 0 {
			out = append(out, a/b)
		}
	}
	return out
}

// column gathers one side's figures.
func column(pairs []pair, s side, get string) []float64 {
	var out []float64
	for _, p := range pairs {
		if v, ok := (*p.of(s))[get]; ok {
			out = append(out, v)
		}
	}
	return out
}
