package config

import (
	"time"

	"github.com/rekeyd/rekeyd/rotator/ledger"
)

// Env is the configuration from the environment. The tags are the documentation that users read: env is the variable
// and its default, help its meaning, words the accepted values, min and max its bounds (every number and duration has
// both), usual describes a default that depends on another variable (the field is then ""), least is the minimum length
// of a secret sent as a token, and sensitive keeps the value out of messages.
type Env struct {
	PolicyFile string `env:"REKEYD_POLICY_FILE" help:"path of the policy file; exactly one of this and REKEYD_POLICIES"`
	Policies   string `env:"REKEYD_POLICIES" sensitive:"true" help:"the policy file's YAML itself"`

	Sink        string `env:"REKEYD_SINK,default=vault" words:"vault file" help:"where secrets are published and the ledger is kept"`
	FileDir     string `env:"REKEYD_FILE_DIR,default=./rekeyd-data" help:"root of the file sink; a record is the file MOUNT/PATH.json below it"`
	LedgerMount string `env:"REKEYD_LEDGER_MOUNT,default=secret" help:"KV v2 mount of the ledger"`
	LedgerPath  string `env:"REKEYD_LEDGER_PATH,default=rekeyd" help:"prefix of the ledger below its mount; no policy may publish there"`

	ListenAddr    string       `env:"REKEYD_LISTEN_ADDR,default=:9466" help:"address of metrics, health and the status page"`
	WebConfigFile string       `env:"REKEYD_WEB_CONFIG_FILE" help:"TLS and basic auth, in the format of prometheus/exporter-toolkit"`
	AdminToken    SecretSource `env:"REKEYD_ADMIN_TOKEN" least:"1" help:"enables the HTTP calls that change state. Without it they answer 404; of fewer than 16 characters it is warned about"`
	StatusPage    string       `env:"REKEYD_STATUS_PAGE,default=auto" words:"auto on off" help:"serve the status page and /api/v1; auto: if the listener is loopback or the web config requires authentication"`
	Pprof         bool         `env:"REKEYD_PPROF,default=false" help:"serve Go profiles at /debug/pprof/: on a loopback listener, to clients that authenticate, or with the admin token"`

	ReconcileInterval   time.Duration `env:"REKEYD_RECONCILE_INTERVAL,default=1m" min:"100ms" max:"24h" help:"how often keys are listed at ElevenLabs and due work is started"`
	ResyncInterval      time.Duration `env:"REKEYD_RESYNC_INTERVAL,default=15m" min:"100ms" max:"168h" help:"how often each ledger entry and record is read again, spread evenly"`
	Concurrency         int           `env:"REKEYD_CONCURRENCY,default=8" min:"1" max:"256" help:"rotations in flight; one that takes more than 3s makes room for others, but one workspace has at most this many, and as many again that are urgent (requested, or a leak)"`
	APIRate             float64       `env:"REKEYD_API_RATE,default=5" min:"0.001" max:"1000000" help:"requests per second, per workspace and process, fewer while ElevenLabs refuses some; also the burst, at least one"`
	APITimeout          time.Duration `env:"REKEYD_API_TIMEOUT,default=15s" min:"100ms" max:"10m" help:"longest wait for one ElevenLabs request"`
	AllowedAPIOrigins   []string      `env:"REKEYD_ALLOWED_API_ORIGINS" help:"further origins, separated by commas, that a workspace's base_url may have, beside the vendor's, loopback and that of ELEVENLABS_BASE_URL"`
	MinInterval         time.Duration `env:"REKEYD_MIN_INTERVAL,default=1h" min:"1s" max:"8760h" help:"a schedule that fires more often is refused"`
	MaxRotationsPerHour int           `env:"REKEYD_MAX_ROTATIONS_PER_HOUR,default=100" min:"1" max:"1000000" help:"rotations per hour and workspace; further ones wait. Leaks and --revoke-now are exempt"`
	ClaimTTL            time.Duration `env:"REKEYD_CLAIM_TTL,default=2m" min:"1s" max:"24h" help:"a claim seen unchanged for this long may be taken over"`
	VerifyTimeout       time.Duration `env:"REKEYD_VERIFY_TIMEOUT,default=30s" min:"100ms" max:"1h" help:"how long a new key may take to become usable"`
	ShutdownTimeout     time.Duration `env:"REKEYD_SHUTDOWN_TIMEOUT,default=25s" min:"100ms" max:"1h" help:"how long work in flight may take to finish after SIGTERM"`

	LogLevel  string `env:"REKEYD_LOG_LEVEL,default=info" words:"debug info warn error" help:"lowest level that is logged"`
	LogFormat string `env:"REKEYD_LOG_FORMAT" words:"json text" usual:"json; text on a terminal" help:"format of the log"`

	AllowUnknownPermissions bool `env:"REKEYD_ALLOW_UNKNOWN_PERMISSIONS,default=false" help:"accept permission names newer than this build"`

	APIKey  SecretSource `env:"ELEVENLABS_API_KEY" least:"1" help:"admin key of the workspace named default, where the policy file defines no workspaces"`
	BaseURL string       `env:"ELEVENLABS_BASE_URL,default=https://api.elevenlabs.io" sensitive:"true" help:"base URL of that workspace"`

	VaultAddr          string       `env:"VAULT_ADDR" sensitive:"true" help:"Vault's URL; required by the sink vault"`
	VaultToken         SecretSource `env:"VAULT_TOKEN" least:"1" help:"Vault token, for the method token"`
	VaultNamespace     string       `env:"VAULT_NAMESPACE" help:"Vault namespace"`
	VaultCACert        string       `env:"VAULT_CACERT" help:"file of the certificate authority that signed Vault's certificate"`
	VaultCAPath        string       `env:"VAULT_CAPATH" help:"folder of such files"`
	VaultClientCert    string       `env:"VAULT_CLIENT_CERT" help:"file of the client certificate; the method cert needs it"`
	VaultClientKey     string       `env:"VAULT_CLIENT_KEY" help:"file of its private key"`
	VaultTLSServerName string       `env:"VAULT_TLS_SERVER_NAME" help:"name expected in Vault's certificate"`
	VaultSkipVerify    bool         `env:"VAULT_SKIP_VERIFY,default=false" help:"do not verify Vault's certificate; for trials only"`

	VaultAuth            string       `env:"REKEYD_VAULT_AUTH,default=token" words:"token token_file approle kubernetes jwt cert" help:"how to log in to Vault"`
	VaultAuthMount       string       `env:"REKEYD_VAULT_AUTH_MOUNT" usual:"the method's usual mount" help:"mount of the auth method"`
	VaultRole            string       `env:"REKEYD_VAULT_ROLE" help:"role to log in as: kubernetes, jwt, cert"`
	VaultRoleID          string       `env:"REKEYD_VAULT_ROLE_ID" help:"role id, for approle"`
	VaultSecretID        SecretSource `env:"REKEYD_VAULT_SECRET_ID" least:"1" help:"secret id, for approle"`
	VaultSecretIDWrapped SecretSource `env:"REKEYD_VAULT_SECRET_ID_WRAPPED" least:"1" help:"wrapping token of a secret id, unwrapped once; unused where there is a secret id"`
	VaultJWTFile         string       `env:"REKEYD_VAULT_JWT_FILE,default=/var/run/secrets/kubernetes.io/serviceaccount/token" help:"file of the token, for kubernetes and jwt"`
	VaultTokenFile       string       `env:"REKEYD_VAULT_TOKEN_FILE" help:"file of the Vault token, for token_file"`

	EventsURL    string       `env:"REKEYD_EVENTS_URL" sensitive:"true" help:"URL to post CloudEvents to; set together with its secret"`
	EventsSecret SecretSource `env:"REKEYD_EVENTS_SECRET" help:"key of the events' HMAC-SHA256 signature"`
}

// Ledger returns the prefix of the ledger.
func (e Env) Ledger() ledger.Ref { return ledger.Ref{Mount: e.LedgerMount, Path: e.LedgerPath} }
