package vaulttest

import (
	"context"
	"errors"
	"fmt"
	"testing"

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
