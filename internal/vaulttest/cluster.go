package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// StartCluster starts three servers that replicate one storage by Raft. The first one leads; the others forward to it,
// and either may take over when it is killed. All of them end with the test.
func StartCluster(tb testing.TB) []*Server {
	tb.Helper()
	leader := StartPersistent(tb)
	nodes := []*Server{leader}
	root := leader.Client(tb)
	// A new member may vote after this long; ten seconds by default.
	_, err := root.Logical().WriteWithContext(tb.Context(), "sys/storage/raft/autopilot/configuration", map[string]any{"server_stabilization_time": "1s"})
	must(tb, "configuring the cluster", err)
	for range 2 {
		s, err := launchEmpty(context.Background(), leader.binary, tb.TempDir())
		managed(tb, s, err)
		c, err := vaultapi.NewClient(s.Config())
		must(tb, "making a client", err)
		_, err = c.Sys().RaftJoinWithContext(tb.Context(), &vaultapi.RaftJoinRequest{LeaderAPIAddr: leader.Addr})
		must(tb, "joining the cluster", err)
		s.UnsealKey, s.RootToken = leader.UnsealKey, leader.RootToken
		s.Unseal(tb)
		nodes = append(nodes, s)
	}
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	must(tb, "waiting for three voters", leader.poll(ctx, func(c *vaultapi.Client) error { return threeVoters(ctx, c) }))
	return nodes
}

// Rejoin starts a persistent server again, after Kill, and unseals it. It waits for no leader: there may be none yet.
func (s *Server) Rejoin(tb testing.TB) {
	tb.Helper()
	var err error
	for range 5 { // a program may have the port for a moment
		s.Kill()
		if err = s.start(tb.Context()); !errors.Is(err, errExited) {
			break
		}
	}
	must(tb, "restarting Vault", err)
	ctx, cancel := context.WithTimeout(tb.Context(), startTimeout)
	defer cancel()
	must(tb, "unsealing Vault", s.giveKey(ctx))
}

// Leads returns since when the server leads, as it says itself; zero if it does not, or does not say so within a second.
func (s *Server) Leads(ctx context.Context) time.Time {
	config := s.Config()
	config.Timeout = time.Second
	defer config.HttpClient.CloseIdleConnections() // this is asked often
	c, err := vaultapi.NewClient(config)
	if err != nil {
		return time.Time{}
	}
	c.ClearNamespace()
	l, err := c.Sys().LeaderWithContext(ctx)
	if err != nil || !l.IsSelf {
		return time.Time{}
	}
	return l.ActiveTime
}

// StepDown has the server, which leads, hand that over to another one. It fails if an election is under way.
func (s *Server) StepDown(tb testing.TB) error {
	tb.Helper()
	return s.Client(tb).Sys().StepDownWithContext(tb.Context())
}

func threeVoters(ctx context.Context, c *vaultapi.Client) error {
	state, err := c.Sys().RaftAutopilotStateWithContext(ctx)
	switch {
	case err != nil:
		return err
	case state == nil || !state.Healthy:
		return errors.New("the cluster is not healthy yet")
	case len(state.Voters) != 3:
		return fmt.Errorf("%d of three servers vote", len(state.Voters))
	}
	return nil
}
