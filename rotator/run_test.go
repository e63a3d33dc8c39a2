package rotator_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// slowToCancel is an API whose listings hang, and end only a while after they were cancelled.
type slowToCancel struct{ inFlight atomic.Int32 }

func (s *slowToCancel) RoundTrip(r *http.Request) (*http.Response, error) {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	<-r.Context().Done()
	<-time.After(time.Second)
	return nil, r.Context().Err()
}

// TestRunLeavesNothingBehind stops a rotator in the middle of a listing: when Run returns, nothing of it runs any more.
func TestRunLeavesNothingBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		slow := new(slowToCancel)
		w.api = slow
		_, stop := w.start(testPolicy(t, nil))
		after(time.Second)
		if n := slow.inFlight.Load(); n != 1 {
			t.Fatalf("%d listings are under way", n)
		}
		stop()
		if n := slow.inFlight.Load(); n != 0 {
			t.Errorf("Run has returned and %d listings are still under way", n)
		}
	})
}

// TestATryIsNotAnAnswer tells a workspace that is tried in vain from one that nobody tries.
func TestATryIsNotAnAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.api = refusing{}
		r, stop := w.start(testPolicy(t, nil))
		defer stop()
		after(10*time.Minute + time.Second)
		ws := r.Snapshot().Workspaces[0]
		if age := time.Since(ws.LastTry); !ws.LastReconcile.IsZero() || age > time.Minute || ws.Err == nil {
			t.Errorf("last answer %s, last try %s ago, %v", ws.LastReconcile, age, ws.Err)
		}
	})
}

type refusing struct{}

func (refusing) RoundTrip(*http.Request) (*http.Response, error) { return nil, errCut }
