package rotator

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// replicasDoc is the ledger's document about the running daemons and the policies they have loaded. It keeps a command with an
// old policy file from treating a daemon's policies as removed. It is a courtesy and proves nothing: a daemon may be suspended
// for longer than its announcement counts.
type replicasDoc struct {
	Schema   int                 `json:"schema"`
	Replicas map[string]replica  `json:"replicas"` // by the process's name in claims
	Sets     map[string][]string `json:"sets"`     // names of policies; a set that several replicas share is written once
}

type replica struct {
	Set string    `json:"set"`
	At  time.Time `json:"at"`
}

// heardFor is how long a daemon counts as running after its last announcement; it announces itself more often.
const heardFor = time.Hour

func (r *Rotator) replicasRef() ledger.Ref { return r.opt.Ledger.Join("replicas") }

func (r *Rotator) readReplicas(ctx context.Context) (replicasDoc, int, error) {
	d := replicasDoc{Schema: ledger.Schema}
	doc, err := r.opt.Store.Read(ctx, r.replicasRef(), 0)
	if err == nil && doc.JSON != nil {
		if err = json.Unmarshal(doc.JSON, &d); err == nil && d.Schema != ledger.Schema {
			err = fmt.Errorf("its schema is %d and this build knows %d", d.Schema, ledger.Schema)
		}
	}
	if err != nil {
		return d, 0, fmt.Errorf("reading the list of running daemons: %w", err)
	}
	return d, doc.Version, nil
}

// notRunning returns an error if a running daemon has the policy loaded.
func (r *Rotator) notRunning(ctx context.Context, policy string) error {
	d, _, err := r.readReplicas(ctx)
	if err != nil {
		return err
	}
	for holder, other := range d.Replicas {
		if holder != r.holder && r.opt.Wall().Sub(other.At) < heardFor && slices.Contains(d.Sets[other.Set], policy) {
			return fmt.Errorf("a running daemon has policy %s loaded (as of %s); remove it from that daemon's policy file first, or stop the daemon: one that died counts for an hour",
				policy, other.At.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// announce writes which policies this daemon has loaded; no names means that it stops.
func (r *Rotator) announce(ctx context.Context, names []string) error {
	d, version, err := r.readReplicas(ctx)
	if err != nil {
		return err
	}
	now := r.opt.Wall()
	next := replicasDoc{Schema: ledger.Schema, Replicas: map[string]replica{}, Sets: map[string][]string{}}
	for holder, other := range d.Replicas {
		if holder != r.holder && now.Sub(other.At) < heardFor {
			next.Replicas[holder], next.Sets[other.Set] = other, d.Sets[other.Set]
		}
	}
	if len(names) > 0 {
		sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
		set := hex.EncodeToString(sum[:8])
		next.Replicas[r.holder], next.Sets[set] = replica{set, now}, names
	}
	data := map[string]any{"schema": next.Schema, "replicas": next.Replicas, "sets": next.Sets}
	_, err = r.opt.Store.Write(ctx, r.replicasRef(), data, version)
	return err
}

// announceLoop announces the policies at the start, when the set changes, and often enough to count as running. After a failure
// it waits longer each time; replicas that start together conflict a few times.
func (r *Rotator) announceLoop(ctx context.Context) {
	for failures := 0; ctx.Err() == nil; {
		select {
		case <-r.reloaded: // this announcement has the new set
		default:
		}
		wait := heardFor / 2
		if err := r.announce(ctx, r.loadedNames()); err == nil {
			failures = 0
		} else if failures++; ctx.Err() == nil {
			if failures == announceTries {
				r.opt.Logger.Warn("announcing this daemon's policies failed", "err", err)
			}
			wait = min(backoff(time.Second, failures, r.jitter()), heardFor/4)
		}
		select {
		case <-ctx.Done():
		case <-r.reloaded:
		case <-time.After(wait):
		}
	}
}

// announceTries is how many announcements in a row may fail before a warning.
const announceTries = 6

func (r *Rotator) loadedNames() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.policies))
}

// leaveFor bounds how long a stopping daemon tries to announce that.
const leaveFor = 2 * time.Second

func (r *Rotator) leave(ctx context.Context) {
	if r.outage.down(r.opt.Ledger.Mount) != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveFor)
	defer cancel()
	for {
		err := r.announce(ctx, nil)
		if err == nil {
			return
		}
		if !errors.Is(err, ledger.ErrConflict) || !sleep(ctx, time.Duration(r.jitter()*float64(leaveFor)/2)) {
			r.opt.Logger.Warn("announcing that this daemon stops failed", "err", err)
			return
		}
	}
}
