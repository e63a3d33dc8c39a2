package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// processCollector is the standard one, with a start time that this process takes itself: in a sandbox that hides /proc
// except for processes, the standard one cannot read it, and alerts use it.
type processCollector struct {
	prometheus.Collector
	started prometheus.Metric
}

func newProcessCollector() processCollector {
	desc := prometheus.NewDesc("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", nil, nil)
	return processCollector{
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, seconds(time.Now())),
	}
}

// Collect implements prometheus.Collector.
func (c processCollector) Collect(ch chan<- prometheus.Metric) {
	usual := make(chan prometheus.Metric)
	go func() {
		defer close(usual)
		c.Collector.Collect(usual)
	}()
	for m := range usual {
		if m.Desc().String() != c.started.Desc().String() {
			ch <- m
		}
	}
	ch <- c.started
}
