package metrics

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// family is one metric with its series. Scrapes reuse its memory.
type family struct {
	in    *[]*dto.MetricFamily // the destination, once it has a series
	of    *dto.MetricFamily
	slabs [][]series
}

// series is one series with the values that its parts point to.
type series struct {
	metric dto.Metric
	gauge  dto.Gauge
	value  float64
	labels [4]*dto.LabelPair
}

const slab = 512 // series per allocation

func newFamily(in *[]*dto.MetricFamily, kind dto.MetricType, name, help string) family {
	name = "rekeyd_" + name
	return family{in: in, of: &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}}
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// add adds a series with labels in the order of their names. More than four are allocated.
func (f *family) add(v float64, labels ...*dto.LabelPair) {
	n := len(f.of.Metric)
	if n == 0 {
		*f.in = append(*f.in, f.of)
	}
	if n == slab*len(f.slabs) {
		f.slabs = append(f.slabs, make([]series, slab))
	}
	s := &f.slabs[n/slab][n%slab]
	s.value = v
	s.metric.Label = append(s.labels[:0], labels...)
	switch {
	case f.of.GetType() != dto.MetricType_COUNTER:
		s.gauge.Value, s.metric.Gauge = &s.value, &s.gauge
	case s.metric.Counter == nil:
		s.metric.Counter = &dto.Counter{Value: &s.value}
	}
	f.of.Metric = append(f.of.Metric, &s.metric)
}

// time adds a series, unless the time is zero.
func (f *family) time(t time.Time, labels ...*dto.LabelPair) {
	if !t.IsZero() {
		f.add(seconds(t), labels...)
	}
}

// seconds is a timestamp with fractions.
func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func orInf(t time.Time) float64 {
	if t.IsZero() {
		return math.Inf(1)
	}
	return seconds(t)
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
