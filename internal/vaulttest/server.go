package vaulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vaultapi "github.com/hashicorp/vault/api"
)

// Server is one running Vault server with a KV v2 mount at secret/.
type Server struct {
	Addr      string // http://127.0.0.1:PORT, or https with StartTLS
	RootToken string
	UnsealKey string // empty for a server in development mode
	CACert    string // file of the authority that signed the server's certificate; empty without TLS

	binary string
	dir    string // home, log, configuration, storage
	args   []string
	cmd    *exec.Cmd
	exited chan struct{}
}

// startTimeout is generous because the tests of many packages share few cores.
const startTimeout = 60 * time.Second

// Start starts a server that keeps everything in memory, and kills it when the test ends.
func Start(tb testing.TB) *Server {
	tb.Helper()
	s, err := Launch(context.Background(), Binary(tb), tb.TempDir())
	return managed(tb, s, err)
}

// StartPersistent starts a server that keeps its data in files, for tests that stop, kill, seal and restart it. Each of
// listener is one more line of its listener's configuration.
func StartPersistent(tb testing.TB, listener ...string) *Server {
	tb.Helper()
	s, err := LaunchPersistent(context.Background(), Binary(tb), tb.TempDir(), listener...)
	return managed(tb, s, err)
}

// StartWithPlugins is Start with a folder of Vault's plugins, each registered under the name of its file. OpenBao has what they
// do built in, and is started without them.
func StartWithPlugins(tb testing.TB, folder string) *Server {
	tb.Helper()
	binary := Binary(tb)
	kind, err := kindOf(context.Background(), binary)
	must(tb, "asking what the server is", err)
	s, err := launch(context.Background(), binary, tb.TempDir(), "", pluginFlags(kind, folder)...)
	return managed(tb, s, err)
}

func pluginFlags(k kind, folder string) []string {
	if k == openBao {
		return nil
	}
	return []string{"-dev-plugin-dir=" + folder}
}

// StartTLS is Start with a listener that speaks TLS and takes client certificates.
func StartTLS(tb testing.TB) *Server {
	tb.Helper()
	dir := tb.TempDir()
	s, err := launch(context.Background(), Binary(tb), dir, filepath.Join(dir, "vault-ca.pem"), tlsFlags(dir)...)
	return managed(tb, s, err)
}

func managed(tb testing.TB, s *Server, err error) *Server {
	tb.Helper()
	if err != nil {
		tb.Fatalf("starting Vault: %v", err)
	}
	tb.Cleanup(s.Kill)
	return s
}

// Launch is Start for programs and for TestMain: the caller kills it. Nothing outside of dir is written.
func Launch(ctx context.Context, binary, dir string) (*Server, error) {
	return launch(ctx, binary, dir, "")
}

func launch(ctx context.Context, binary, dir, caCert string, more ...string) (*Server, error) {
	s := &Server{binary: binary, dir: dir, CACert: caCert, RootToken: "root-token-of-a-test"} //nolint:gosec // of a server that lives as long as a test
	return s, s.startSomewhere(ctx, func(addr string) error {
		s.args = append(devLine(s.RootToken, addr), more...)
		return nil
	})
}

// devLine is a start in development mode, and tlsFlags its addition for TLS; OpenBao takes the same.
func devLine(token, addr string) []string {
	return []string{"server", "-dev", "-dev-no-store-token", "-dev-root-token-id=" + token, "-dev-listen-address=" + addr}
}

func tlsFlags(dir string) []string { return []string{"-dev-tls", "-dev-tls-cert-dir=" + dir} }

// LaunchPersistent is StartPersistent for programs and for TestMain: the caller kills it.
func LaunchPersistent(ctx context.Context, binary, dir string, listener ...string) (*Server, error) {
	s, err := launchEmpty(ctx, binary, dir, listener...)
	if err != nil {
		return nil, err
	}
	if err := s.initialize(ctx); err != nil {
		s.Kill()
		return nil, err
	}
	return s, nil
}

// launchEmpty starts a server with storage of its own and nothing in it.
func launchEmpty(ctx context.Context, binary, dir string, listener ...string) (*Server, error) {
	s := &Server{binary: binary, dir: dir}
	config := filepath.Join(dir, "vault.hcl")
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return nil, fmt.Errorf("making Vault's data folder: %w", err)
	}
	return s, s.startSomewhere(ctx, func(addr string) error {
		cluster, err := freeAddr(ctx)
		if err != nil {
			return err
		}
		s.args = []string{"server", "-config=" + config}
		return os.WriteFile(config, fmt.Appendf(nil, configuration, addr, cluster, data, strings.Join(listener, "\n")), 0o600)
	})
}

// configuration of one node with integrated storage: the only durable storage of a minimal build.
const configuration = `
disable_mlock = true
api_addr      = "http://%[1]s"
cluster_addr  = "http://%[2]s"
storage "raft" {
  path                   = %[3]q
  node_id                = "%[1]s"
  performance_multiplier = 1
}
listener "tcp" {
  address         = "%[1]s"
  cluster_address = "%[2]s"
  tls_disable     = true
  %[4]s
}
`

// startSomewhere picks a free port. Another process may take it before Vault does: then the next one is tried.
func (s *Server) startSomewhere(ctx context.Context, configure func(addr string) error) error {
	var errs []error
	for range 5 {
		addr, err := freeAddr(ctx)
		if err != nil {
			return err
		}
		if err := configure(addr); err != nil {
			return fmt.Errorf("configuring Vault: %w", err)
		}
		s.Addr = "http://" + addr
		if s.CACert != "" {
			s.Addr = "https://" + addr
		}
		err = s.start(ctx)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
		if !errors.Is(err, errExited) {
			break
		}
	}
	return errors.Join(errs...)
}

func freeAddr(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", fmt.Errorf("finding a free port: %w", err)
	}
	return l.Addr().String(), l.Close()
}

var errExited = errors.New("vault exited")

// start runs the process and returns once its API answers.
func (s *Server) start(ctx context.Context) error {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("opening Vault's log: %w", err)
	}
	defer func() { _ = log.Close() }()
	s.cmd = exec.Command(s.binary, s.args...) //nolint:gosec,noctx // killed by Kill, which outlives any context
	s.cmd.Env = []string{"HOME=" + s.dir, "PATH=" + os.Getenv("PATH")}
	s.cmd.Dir, s.cmd.Stdout, s.cmd.Stderr = s.dir, log, log
	s.cmd.SysProcAttr = diesWithUs()
	if err := s.cmd.Start(); err != nil {
		return fmt.Errorf("starting Vault: %w", err)
	}
	exited := make(chan struct{})
	s.exited = exited
	go func(cmd *exec.Cmd) { _ = cmd.Wait(); close(exited) }(s.cmd)
	if err := s.awaitHealth(ctx); err != nil {
		s.Kill()
		return fmt.Errorf("%w: %s", err, s.LogTail())
	}
	return nil
}

func (s *Server) awaitHealth(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return s.poll(ctx, func(c *vaultapi.Client) error {
		h, err := c.Sys().HealthWithContext(ctx)
		if err != nil {
			return err
		}
		if s.UnsealKey == "" && s.RootToken != "" && h.Sealed {
			return errors.New("still sealed")
		}
		return s.mountReady(ctx, c, h)
	})
}

// mountReady waits for a development server's own mount, which comes up after its health.
func (s *Server) mountReady(ctx context.Context, c *vaultapi.Client, h *vaultapi.HealthResponse) error {
	if h.Sealed || s.RootToken == "" {
		return nil
	}
	_, err := c.Logical().ReadWithContext(ctx, "secret/config")
	return err
}

// poll asks until f succeeds, the process exits or the context ends.
func (s *Server) poll(ctx context.Context, f func(*vaultapi.Client) error) error {
	for {
		c, err := s.client() // the file of the authority may not be there yet
		if err == nil {
			err = f(c)
		}
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errExited
		case <-ctx.Done():
			return fmt.Errorf("waiting for Vault: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Kill ends the process at once, as SIGKILL does, and waits for it. It may be called again.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	<-s.exited
}

func (s *Server) logFile() string { return filepath.Join(s.dir, "vault.log") }

// LogTail is the end of what the server has logged since it was started last.
func (s *Server) LogTail() string {
	text, _ := os.ReadFile(s.logFile())
	text = bytes.TrimSpace(text)
	return string(text[max(0, len(text)-2000):])
}
