package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// document is all that is known of a run.
type document struct {
	Command  string          `json:"command"`
	Versions map[side]string `json:"versions"`
	Machine  machine         `json:"machine"`
	Pairs    int             `json:"pairs"`
	Rows     []result        `json:"rows"`
}

// result is a row filled in. Figures are in the unit that it names.
type result struct {
	Group string          `json:"group"`
	Name  string          `json:"name"`
	Where string          `json:"where,omitempty"` // if not on this machine itself
	Unit  string          `json:"unit"`
	Goal  string          `json:"goal,omitempty"`
	Ours  *spread         `json:"microvm,omitempty"`
	QEMU  *spread         `json:"qemu,omitempty"`
	Ratio *spread         `json:"ratio,omitempty"` // microvm by QEMU, pair by pair
	Pairs []pair          `json:"pairs"`           // only the row's figure, in the order of the runs
	None  map[side]string `json:"absent,omitempty"`
	Bad   []string        `json:"failed,omitempty"`
}

// fill makes a result of a row and its measurement.
func fill(r row, m *measured) result {
	out := result{Group: r.group, Name: r.name, Unit: r.unit.name, Goal: r.goal, None: m.Absent, Bad: m.Failed}
	for _, p := range m.Pairs {
		out.Pairs = append(out.Pairs, pair{only(p.Ours, r), only(p.QEMU, r)})
	}
	out.Ours = spreadOf(column(out.Pairs, ours, r.get))
	out.QEMU = spreadOf(column(out.Pairs, qemu, r.get))
	out.Ratio = spreadOf(ratios(out.Pairs, r.get))
	return out
}

func only(f figures, r row) figures {
	v, ok := f[r.get]
	if !ok {
		return nil
	}
	return figures{r.get: v / r.unit.divisor}
}

// markdown writes the table.
func (d *document) markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "    %s\n\n", d.Command)
	fmt.Fprintf(&b, "%s; %s. %s. Load average before %s, after %s. Medians of %d pairs of runs, in turns; the ratio is taken pair by pair: median, least to most.\n\n",
		d.Versions[ours], d.Versions[qemu], d.Machine.What, d.Machine.LoadBefore, d.Machine.LoadAfter, d.Pairs)
	fmt.Fprintf(&b, "| figure | microvm | QEMU | ratio | goal |\n|---|---|---|---|---|\n")
	var notes []string
	for _, r := range d.Rows {
		name := r.Name
		if r.Where != "" {
			name += ", " + r.Where
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", name, r.cell(ours), r.cell(qemu), r.ratio(), r.Goal)
		for _, bad := range r.Bad {
			notes = append(notes, fmt.Sprintf("- %s: %s\n", r.Name, bad))
		}
	}
	if len(notes) > 0 {
		fmt.Fprintf(&b, "\nWhat failed:\n\n%s", strings.Join(notes, ""))
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r result) cell(s side) string {
	values := r.Ours
	if s == qemu {
		values = r.QEMU
	}
	switch {
	case values != nil:
		return strings.TrimSpace(digits(values.Median) + " " + r.Unit)
	case r.None[s] != "":
		return r.None[s]
	}
	return "-"
}

func (r result) ratio() string {
	if r.Ratio == nil {
		return "-"
	}
	return fmt.Sprintf("%sx (%s to %s)", digits(r.Ratio.Median), digits(r.Ratio.Min), digits(r.Ratio.Max))
}

// digits writes three significant digits, or all before the point.
func digits(v float64) string {
	switch {
	case v == 0:
		return "0"
	case v < 0.995:
		return fmt.Sprintf("%.2g", v)
	case v < 9.95:
		return fmt.Sprintf("%.2f", v)
	case v < 99.5:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// String is for the log.
func (f figures) String() string {
	var words []string
	for name, v := range f {
		words = append(words, fmt.Sprintf("%s %.4g", name, v))
	}
	return strings.Join(slices.Sorted(slices.Values(words)), ", ")
}
