package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/process"
	"github.com/rekeyd/rekeyd/internal/vaulttest"
)

// TestTheLeaderOfVaultIsKilled in the middle of rotations, once for a daemon that goes through a load balancer and once
// for one that speaks to a follower. Rotations go on after the election, and every key is accounted for.
func TestTheLeaderOfVaultIsKilled(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"through a load balancer", "through a follower"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			nodes := vaulttest.StartCluster(t)
			leader, follower := nodes[0], nodes[1]
			w := newWorld(t, follower)
			addr := follower.Addr
			if strings.Contains(name, "balancer") {
				addr = balance(t, nodes)
			}
			w.policy("@every 2s")
			d := w.start(map[string]string{"VAULT_ADDR": addr})
			w.reaches(4)
			leader.Kill()
			killed := time.Now()
			_, version := w.readable()
			w.reaches(version + 2)
			t.Logf("rotations went on %s after the leader was killed", time.Since(killed).Round(100*time.Millisecond))
			w.policy("@every 24h")
			w.settled("")
			d.end()
		})
	}
}

// reaches waits until the record has at least this version.
func (w *world) reaches(version int) {
	w.t.Helper()
	process.Eventually(w.t, 3*process.Patience, func() error {
		if _, now := w.record(); now < version {
			return fmt.Errorf("the record has version %d, not %d", now, version)
		}
		return nil
	})
}

// readable returns the record as soon as Vault answers again.
func (w *world) readable() (data map[string]any, version int) {
	w.t.Helper()
	process.Eventually(w.t, 3*process.Patience, func() error {
		if data, version = w.record(); version == 0 {
			return fmt.Errorf("the record cannot be read")
		}
		return nil
	})
	return data, version
}

// balance forwards connections to whichever of the servers takes them, in turn.
func balance(t *testing.T, nodes []*vaulttest.Server) (url string) {
	t.Helper()
	l := listener(t)
	ctx, cancel := context.WithCancel(context.Background())
	var conns sync.WaitGroup
	t.Cleanup(func() { cancel(); _ = l.Close(); conns.Wait() })
	conns.Go(func() {
		for turn := 0; ; turn++ {
			client, err := l.Accept()
			if err != nil {
				return
			}
			conns.Go(func() { forward(ctx, client, nodes, turn) })
		}
	})
	return "http://" + l.Addr().String()
}

func forward(ctx context.Context, client net.Conn, nodes []*vaulttest.Server, turn int) {
	defer func() { _ = client.Close() }()
	for i := range nodes {
		server, err := new(net.Dialer).DialContext(ctx, "tcp", strings.TrimPrefix(nodes[(turn+i)%len(nodes)].Addr, "http://"))
		if err != nil {
			continue
		}
		stop := context.AfterFunc(ctx, func() { _ = server.Close(); _ = client.Close() })
		defer stop()
		go func() { _, _ = io.Copy(server, client); _ = server.Close() }()
		_, _ = io.Copy(client, server)
		_ = server.Close()
		return
	}
}

// TestAStandbyWithoutALeader is what is left when the leader and the other follower are gone: it has its own name, and
// no key is made for which there is no place.
func TestAStandbyWithoutALeader(t *testing.T) {
	t.Parallel()
	nodes := vaulttest.StartCluster(t)
	w := newWorld(t, nodes[1])
	w.policy("@every 2s")
	d := w.start(nil)
	w.reaches(2)
	nodes[2].Kill()
	nodes[0].Kill()
	process.Eventually(t, 3*process.Patience, func() error {
		status, body := d.get("/readyz")
		if status != http.StatusServiceUnavailable || !strings.Contains(d.Stderr.String(), `"sink_standby"`) {
			return fmt.Errorf("HTTP %d: %s; and nobody says sink_standby", status, body)
		}
		return nil
	})
	created := len(w.history("createAPIKey"))
	tick := time.NewTicker(5 * time.Second) // two runs are due meanwhile
	defer tick.Stop()
	<-tick.C
	if n := len(w.history("createAPIKey")); n != created {
		t.Errorf("%d keys were created while nobody led", n-created)
	}
	d.end()
}
