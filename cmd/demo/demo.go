package main

import (
	"context"
	"crypto/rand"
	_ "embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sethvargo/go-envconfig"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
	"github.com/rekeyd/rekeyd/internal/daemon"
	"github.com/rekeyd/rekeyd/rotator"
)

//go:embed policies.yaml
var embedded string

// demo is one run of it.
type demo struct {
	env      envconfig.Lookuper // asked for Vault's variables only
	policies string             // a policy file; PREFIX in it is replaced, so that each run has its own paths
	dir      string             // below it each run makes a folder of its own
	listen   string             // metrics and status page; the next free port if it is taken
	out      io.Writer
}

// run works until ctx ends.
func (d demo) run(ctx context.Context) error {
	dir, err := d.makeDir()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(dir, "rekeyd.log")) //nolint:gosec // in the folder that was just made
	if err != nil {
		return fmt.Errorf("making the log file: %w", err)
	}
	defer func() { _ = log.Close() }()
	sim, err := startSimulator(ctx)
	if err != nil {
		return err
	}
	defer sim.stop()
	settings, err := daemon.Load(d.lookuper(dir, sim))
	if err != nil {
		return fmt.Errorf("configuring the daemon: %w", err)
	}
	listener, err := listenNear(ctx, d.listen)
	if err != nil {
		return err
	}
	told := newTeller(d.out)
	played := &scenes{sim: sim.Server, url: "http://" + listener.Addr().String(), token: adminToken(sim), say: told.say, events: make(chan rotator.Event, 256)}
	observe := func(e rotator.Event) { told.tell(e); played.observe(e) }
	rekeyd, err := daemon.New(daemon.Config{Settings: settings, Log: log, Version: "demo", Listener: listener, Observe: observe})
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	d.introduce(settings, sim, listener, dir)
	done := make(chan struct{})
	go func() { defer close(done); played.play(ctx) }()
	err = rekeyd.Run(ctx)
	<-done
	told.flush()
	d.say("\nStopped. Keys of the simulator are gone with it; what was written is still in %s.\n", dir)
	return err
}

func (d demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

func (d demo) makeDir() (string, error) {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return "", fmt.Errorf("making the folder for the demo: %w", err)
	}
	dir, err := os.MkdirTemp(d.dir, "demo-")
	if err != nil {
		return "", fmt.Errorf("making the folder for the demo: %w", err)
	}
	return dir, nil
}

// lookuper is the daemon's environment: fast, small, and on the real Vault where one is named.
func (d demo) lookuper(dir string, sim *simulator) envconfig.Lookuper {
	env := map[string]string{
		"REKEYD_POLICIES":           strings.ReplaceAll(d.policies, "PREFIX", "elevenlabs/"+filepath.Base(dir)),
		"REKEYD_LEDGER_PATH":        "rekeyd/" + filepath.Base(dir),
		"REKEYD_SINK":               "file",
		"REKEYD_FILE_DIR":           dir,
		"REKEYD_MIN_INTERVAL":       "1s",
		"REKEYD_RECONCILE_INTERVAL": "1s",
		"REKEYD_RESYNC_INTERVAL":    "10s",
		"REKEYD_CLAIM_TTL":          "10s",
		"REKEYD_API_RATE":           "50",
		"REKEYD_SHUTDOWN_TIMEOUT":   "5s",
		"REKEYD_VERIFY_TIMEOUT":     "2s",
		"REKEYD_ADMIN_TOKEN":        adminToken(sim),
		"REKEYD_LOG_LEVEL":          "debug",

		"REKEYD_MAX_ROTATIONS_PER_HOUR": "1000000",
		"ELEVENLABS_API_KEY":            sim.adminKey,
		"ELEVENLABS_BASE_URL":           sim.url,
	}
	if !d.realVault() {
		return envconfig.MapLookuper(env)
	}
	env["REKEYD_SINK"] = "vault"
	return envconfig.MultiLookuper(envconfig.MapLookuper(env), envconfig.LookuperFunc(func(name string) (string, bool) {
		if !strings.HasPrefix(name, "VAULT_") {
			return "", false
		}
		return d.env.Lookup(name)
	}))
}

func (d demo) realVault() bool {
	addr, _ := d.env.Lookup("VAULT_ADDR")
	return addr != ""
}

func (d demo) introduce(s daemon.Settings, sim *simulator, l net.Listener, dir string) {
	first := s.Policies.Policies[0].Sink.Ref
	where, look := "files below "+dir, "cat "+filepath.Join(dir, first.Mount, first.Path+".json")
	if d.realVault() {
		where, look = "the Vault at "+s.Env.VaultAddr, "vault kv get -mount="+first.Mount+" "+first.Path
	}
	d.say("rekeyd demo: %d policies, keys of a simulated ElevenLabs, secrets in %s\n\n", len(s.Policies.Policies), where)
	d.say("  status page   http://%s/\n", l.Addr())
	d.say("  metrics       http://%s/metrics\n", l.Addr())
	d.say("  a secret      %s\n", look)
	d.say("  all the keys  %s/_sim/state\n", sim.url)
	d.say("  the log       %s\n\n", filepath.Join(dir, "rekeyd.log"))
	d.say("Keys rotate every 10 to 20 seconds here; an old key works for some seconds more, is disabled, then deleted.\nCtrl-C stops.\n\n")
}

// simulator is a simulated ElevenLabs on a loopback port.
type simulator struct {
	*elevensim.Server
	url, adminKey string
	http          *http.Server
}

func startSimulator(ctx context.Context) (*simulator, error) {
	var seed [8]byte
	_, _ = rand.Read(seed[:]) // never fails
	s := &simulator{adminKey: "sk_" + rand.Text()}
	sim := elevensim.New(elevensim.Options{AdminKey: s.adminKey, Seed: binary.NativeEndian.Uint64(seed[:]), Accounts: []elevensim.Account{
		{ID: "svcacc_speech", Name: "Speech"}, {ID: "svcacc_studio", Name: "Studio"},
	}})
	s.Server = sim
	sim.ShareVoice(voice, "svcacc_speech")
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening for the simulator: %w", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/_sim/", sim.Manage())
	mux.Handle("/", sim)
	s.url = "http://" + l.Addr().String()
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = s.http.Serve(l) }() // ends with stop
	return s, nil
}

func (s *simulator) stop() { _ = s.http.Close() }

// listenNear listens on the address, or on one of the next ports.
func listenNear(ctx context.Context, addr string) (net.Listener, error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	for try := range 50 {
		var l net.Listener
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(port+try)))
		if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
			return l, err
		}
	}
	return nil, fmt.Errorf("listening on %s or one of the next ports: %w", addr, err)
}

// adminToken is what the demo itself asks the daemon with.
func adminToken(sim *simulator) string { return "demo-admin-token-" + sim.adminKey }
