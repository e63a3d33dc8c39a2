package sinks

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Some servers answer reads from standbys, which lag behind the active node: performance standbys of Vault Enterprise, and standbys
// of OpenBao since 2.5. Vault Enterprise, and OpenBao since 2.7, return an index with each write, and a node answers a read that
// names it only once it has reached it. The standbys of other servers forward reads to the active node.

// behindFor is how long a read is asked again while the node that answers has not reached the index.
const behindFor = 10 * time.Second

// getSince reads from a node that has reached the index; "": from any.
func (v *Vault) getSince(ctx context.Context, index, path string, query map[string][]string) answer {
	if index == "" {
		return v.get(ctx, opRead, path, query)
	}
	end := time.Now().Add(behindFor)
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		how := []vaultapi.RequestCallback{vaultapi.RequireState(index)}
		forward := !v.staysLocal.Load()
		if forward {
			how = append(how, vaultapi.ForwardInconsistent())
		}
		a := v.getWith(ctx, v.client.WithRequestCallbacks(how...), opRead, path, query)
		switch {
		case a.fault == nil && a.status == http.StatusBadRequest && forward:
			v.staysLocal.Store(true) // the server's configuration lets no client choose the node
		case !a.behind() || time.Now().Add(wait).After(end) || !pause(ctx, wait):
			return a
		}
	}
}

// behind reports whether the node has not reached the index of the request: Vault answers 412, OpenBao 429, as both do for a quota.
func (a answer) behind() bool {
	return a.fault == nil && (a.status == http.StatusPreconditionFailed || a.status == http.StatusTooManyRequests && !a.says("quota exceeded"))
}

func pause(ctx context.Context, d time.Duration) bool {
	over, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	<-over.Done()
	return ctx.Err() == nil
}

// Node is what the node that answers says of itself and its cluster.
type Node struct {
	Version string // of the server
	Standby bool   // it is not the active node
	Reads   bool   // standbys of the cluster may answer reads by themselves
	Indexed bool   // the server returns an index with each write
}

// Node asks the node that answers. It needs no token.
func (v *Vault) Node(ctx context.Context) (Node, error) {
	var health struct {
		Version    string `json:"version"`
		Standby    bool   `json:"standby"`
		Performs   bool   `json:"performance_standby"`
		Enterprise *bool  `json:"enterprise"` // OpenBao does not say
	}
	var leader struct {
		Clustered bool `json:"ha_enabled"`
	}
	err := v.system(ctx, "sys/health", map[string][]string{"standbyok": {"true"}, "perfstandbyok": {"true"}}, &health)
	if err == nil {
		err = v.system(ctx, "sys/leader", nil, &leader)
	}
	enterprise, bao := health.Enterprise != nil && *health.Enterprise, health.Enterprise == nil
	return Node{
		Version: health.Version, Standby: health.Standby || health.Performs,
		Reads:   health.Performs || leader.Clustered && (enterprise || bao && atLeast(health.Version, 2, 5)),
		Indexed: enterprise || bao && atLeast(health.Version, 2, 7),
	}, err
}

// atLeast reports whether a version like 2.6.2 or 1.21.0+ent is this one or later.
func atLeast(version string, major, minor int) bool {
	var x, y int
	if _, err := fmt.Sscanf(version, "%d.%d", &x, &y); err != nil {
		return false
	}
	return x > major || x == major && y >= minor
}

// system reads a document of the system's backend that has no envelope.
func (v *Vault) system(ctx context.Context, path string, query map[string][]string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, v.opt.Timeout)
	defer cancel()
	resp, err := v.client.WithNamespace("").Logical().ReadRawWithDataWithContext(ctx, path, query)
	if err == nil {
		defer func() { _ = resp.Body.Close() }()
		err = json.NewDecoder(resp.Body).Decode(into)
	}
	if err != nil {
		return v.faultError(ctx, "reading "+path, answer{fault: notVault(err)}, false)
	}
	return nil
}

// Lags implements ledger.Store. It asks once per resync interval.
func (v *Vault) Lags(ctx context.Context) bool {
	v.mu.Lock()
	lags, known := v.lags, !v.lagsAsked.IsZero() && time.Since(v.lagsAsked) < v.opt.Resync
	v.mu.Unlock()
	if known {
		return lags
	}
	n, err := v.Node(ctx)
	v.mu.Lock()
	defer v.mu.Unlock()
	if err == nil {
		v.lags, v.lagsAsked = n.Reads, time.Now()
	}
	return v.lags
}
