// Package kubetest starts a real Kubernetes API server with its etcd, for tests that need what only it can do.
package kubetest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rekeyd/rekeyd/internal/tools"
)

const (
	startTimeout = 2 * time.Minute
	version      = "v1.34.2" // that of its go.mod, which the server does not know by itself and helm asks for
)

// Cluster is an API server without any node.
type Cluster struct {
	URL    string // https://127.0.0.1:PORT
	CACert string // file of the authority that signed its certificate

	tb     testing.TB
	admin  string // token of its administrator
	client *http.Client
}

// Build returns the path of a program below internal/tools, which takes minutes the first time.
func Build(tb testing.TB, name, what string, args ...string) string {
	tb.Helper()
	path, err := tools.Program{Name: name, What: what, Args: args}.Build(context.Background(), os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// Start starts etcd and the API server, and kills both when the test ends.
func Start(tb testing.TB) *Cluster {
	tb.Helper()
	etcd, err := exec.LookPath("etcd")
	if err != nil {
		tb.Fatal("etcd is not installed; on Debian it is in the package etcd-server")
	}
	binary := Build(tb, "kubernetes", "a real kube-apiserver once: about 5 minutes on two cores, 100 MB in .cache/kubernetes",
		"-ldflags", "-s -w -X k8s.io/component-base/version.gitVersion="+version)
	dir, store, peer, port := tb.TempDir(), "http://"+free(tb), "http://"+free(tb), free(tb)
	run(tb, dir, etcd, "--data-dir="+filepath.Join(dir, "etcd"), "--listen-client-urls="+store, "--advertise-client-urls="+store,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	c := &Cluster{URL: "https://" + port, CACert: filepath.Join(dir, "apiserver.crt"), tb: tb, admin: "token-of-the-administrator"}
	write(tb, filepath.Join(dir, "tokens.csv"), []byte(c.admin+`,admin,1,"system:masters"`+"\n"))
	key := serviceAccountKey(tb, dir)
	_, number, _ := net.SplitHostPort(port)
	run(tb, dir, binary, "--etcd-servers="+store, "--bind-address=127.0.0.1", "--secure-port="+number, "--cert-dir="+dir,
		"--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.0.0.0/24",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+key, "--service-account-signing-key-file="+key)
	c.await()
	return c
}

// free returns an address of loopback without a listener.
func free(tb testing.TB) string {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

func run(tb testing.TB, dir, name string, args ...string) {
	tb.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(name)+".log")) //nolint:gosec // a folder of the test's own
	if err != nil {
		tb.Fatal(err)
	}
	cmd := exec.Command(name, args...) //nolint:gosec,noctx // killed below
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, log, log, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	if err := cmd.Start(); err != nil {
		tb.Fatalf("starting %s: %v", name, err)
	}
	tb.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
		if tb.Failed() {
			text, _ := os.ReadFile(log.Name())
			tb.Logf("%s said last:\n%s", filepath.Base(name), text[max(0, len(text)-3000):])
		}
	})
}

func write(tb testing.TB, file string, text []byte) {
	tb.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		tb.Fatal(err)
	}
}

// serviceAccountKey makes the key that signs the tokens of service accounts.
func serviceAccountKey(tb testing.TB, dir string) string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		tb.Fatal(err)
	}
	file := filepath.Join(dir, "service-accounts.key")
	write(tb, file, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
	return file
}

// await returns once the server is ready and its own roles are there.
func (c *Cluster) await() {
	c.tb.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(startTimeout); ; <-tick.C {
		status, body := c.Try(http.MethodGet, "/readyz", nil)
		if status == http.StatusOK {
			status, body = c.Try(http.MethodGet, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:auth-delegator", nil)
		}
		if status == http.StatusOK {
			return
		}
		if time.Now().After(deadline) {
			c.tb.Fatalf("the API server is not ready: HTTP %d: %s", status, body)
		}
	}
}

// Try sends an object to the API server as its administrator.
func (c *Cluster) Try(method, path string, body any) (status int, answer string) {
	if c.client == nil {
		pemText, err := os.ReadFile(c.CACert)
		pool := x509.NewCertPool()
		if err != nil || !pool.AppendCertsFromPEM(pemText) {
			return 0, fmt.Sprint("no certificate yet: ", err)
		}
		c.client = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	}
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err.Error()
	}
	req, err := http.NewRequestWithContext(c.tb.Context(), method, c.URL+path, bytes.NewReader(text))
	if err != nil {
		return 0, err.Error()
	}
	req.Header.Set("Authorization", "Bearer "+c.admin)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(got)
}

// Do is Try where nothing but success is expected.
func (c *Cluster) Do(method, path string, object any) string {
	c.tb.Helper()
	status, body := c.Try(method, path, object)
	if status < 200 || status > 299 {
		c.tb.Fatalf("%s %s: HTTP %d: %s", method, path, status, body)
	}
	return body
}

// Object is one in JSON.
type Object = map[string]any

// Kubeconfig returns a file with which kubectl and helm are the administrator.
func (c *Cluster) Kubeconfig() string {
	c.tb.Helper()
	authority, err := os.ReadFile(c.CACert)
	if err != nil {
		c.tb.Fatal(err)
	}
	text, err := json.Marshal(Object{
		"apiVersion": "v1", "kind": "Config", "current-context": "test",
		"clusters": []Object{{"name": "test", "cluster": Object{"server": c.URL, "certificate-authority-data": authority}}},
		"users":    []Object{{"name": "admin", "user": Object{"token": c.admin}}},
		"contexts": []Object{{"name": "test", "context": Object{"cluster": "test", "user": "admin"}}},
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	file := filepath.Join(c.tb.TempDir(), "kubeconfig")
	write(c.tb, file, text)
	return file
}

// AddServiceAccount makes a service account, and its namespace where that is new.
func (c *Cluster) AddServiceAccount(namespace, name string) {
	c.tb.Helper()
	_, _ = c.Try(http.MethodPost, "/api/v1/namespaces", Object{"metadata": Object{"name": namespace}}) // it may be there
	c.Do(http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts", Object{"metadata": Object{"name": name}})
}

// LetReview allows a service account to review the tokens of others.
func (c *Cluster) LetReview(namespace, name string) {
	c.tb.Helper()
	c.Do(http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", Object{
		"metadata": Object{"name": name + "-reviews"},
		"roleRef":  Object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:auth-delegator"},
		"subjects": []Object{{"kind": "ServiceAccount", "namespace": namespace, "name": name}},
	})
}

// Token asks for a token of a service account as the kubelet does for a projected volume; without an audience it is
// one for the API server itself.
func (c *Cluster) Token(namespace, name, audience string) string {
	c.tb.Helper()
	spec := Object{"expirationSeconds": 3600}
	if audience != "" {
		spec["audiences"] = []string{audience}
	}
	body := c.Do(http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+name+"/token", Object{"spec": spec})
	var answer struct{ Status struct{ Token string } }
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Status.Token == "" {
		c.tb.Fatalf("no token in %s: %v", body, err)
	}
	return answer.Status.Token
}
