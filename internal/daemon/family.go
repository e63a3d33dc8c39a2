package daemon

import (
	"math"
	"time"

	dto "github.com/prometheus/client_model/go"
)

// family is one metric with its series.
type family struct {
	in   *[]*dto.MetricFamily // where it belongs once it has a series
	of   *dto.MetricFamily
	free []series // made together, which is cheaper
}

// series is one series with all that its parts point to.
type series struct {
	metric  dto.Metric
	gauge   dto.Gauge
	counter dto.Counter
	value   float64
	labels  [2]*dto.LabelPair
}

const seriesAtOnce = 512

func newFamily(in *[]*dto.MetricFamily, kind dto.MetricType, name, help string) family {
	name = "rekeyd_" + name
	return family{in: in, of: &dto.MetricFamily{Name: &name, Help: &help, Type: &kind}}
}

func label(name, value string) *dto.LabelPair { return &dto.LabelPair{Name: &name, Value: &value} }

// add adds a series with at most two labels, in the order of their names.
func (f *family) add(v float64, labels ...*dto.LabelPair) {
	if len(f.of.Metric) == 0 {
		*f.in = append(*f.in, f.of)
	}
	if len(f.free) == 0 {
		f.free = make([]series, seriesAtOnce)
	}
	s := &f.free[0]
	f.free = f.free[1:]
	s.value = v
	s.metric.Label = s.labels[:copy(s.labels[:], labels)]
	if f.of.GetType() == dto.MetricType_COUNTER {
		s.counter.Value, s.metric.Counter = &s.value, &s.counter
	} else {
		s.gauge.Value, s.metric.Gauge = &s.value, &s.gauge
	}
	f.of.Metric = append(f.of.Metric, &s.metric)
}

// time adds a series, unless its moment has not come yet.
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

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
