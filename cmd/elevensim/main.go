// Command elevensim serves the ElevenLabs simulator over HTTP.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/rekeyd/rekeyd/elevenlabs/elevensim"
)

const (
	adminKeyVariable = "ELEVENSIM_ADMIN_KEY"
	shutdownTimeout  = time.Second // for requests in flight; those that hang by a fault never finish
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintln(os.Stderr, "elevensim:", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage")

// run serves until ctx ends. A usage error has been reported on stderr and wraps errUsage.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) error {
	listen, options, err := parse(args, getenv, stderr)
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	local := isLoopback(listener.Addr())
	server := &http.Server{Handler: handler(elevensim.New(options), local), ReadHeaderTimeout: 10 * time.Second}
	_, _ = fmt.Fprintf(stdout, "elevensim listening on http://%s, management under /_sim/%s\n", listener.Addr(), note(local))
	return serve(ctx, server, listener)
}

func parse(args []string, getenv func(string) string, stderr io.Writer) (listen string, o elevensim.Options, err error) {
	flags := flag.NewFlagSet("elevensim", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&listen, "listen", "127.0.0.1:8642", "address to serve on; /_sim/ only on a loopback one")
	flags.StringVar(&o.AdminKey, "admin-key", "", "the key that manages service accounts; better given as "+adminKeyVariable)
	flags.Uint64Var(&o.Seed, "seed", 0, "the same seed and requests give the same ids and secrets")
	flags.Func("account", "a service account as `ID=NAME`; repeatable", func(v string) error {
		id, name, ok := strings.Cut(v, "=")
		if !ok || id == "" || name == "" {
			return errors.New("not of the form ID=NAME")
		}
		if slices.ContainsFunc(o.Accounts, func(a elevensim.Account) bool { return a.ID == id }) {
			return errors.New("there is an account with this id already")
		}
		o.Accounts = append(o.Accounts, elevensim.Account{ID: id, Name: name})
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return "", o, usage(err)
	}
	if o.AdminKey == "" {
		o.AdminKey = getenv(adminKeyVariable)
	}
	switch {
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case o.AdminKey == "":
		err = fmt.Errorf("no admin key: set %s, or give --admin-key", adminKeyVariable)
	default:
		return listen, o, nil
	}
	_, _ = fmt.Fprintln(stderr, "elevensim:", err)
	return "", o, usage(err)
}

func usage(err error) error {
	if errors.Is(err, flag.ErrHelp) {
		return err
	}
	return fmt.Errorf("%w: %w", errUsage, err)
}

func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

func note(local bool) string {
	if local {
		return ""
	}
	return " refused, since the listener is not loopback"
}

func handler(s *elevensim.Server, local bool) http.Handler {
	manage := s.Manage()
	if !local {
		manage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "Management is served on a loopback listener only: start elevensim with --listen 127.0.0.1:PORT.", http.StatusForbidden)
		})
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/_sim/") {
			manage.ServeHTTP(w, r)
			return
		}
		s.ServeHTTP(w, r)
	})
}

func serve(ctx context.Context, server *http.Server, listener net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serving: %w", err)
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(bounded); err != nil {
		_ = server.Close() // cut what is left
	}
	if err := <-failed; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving: %w", err)
	}
	return nil
}
