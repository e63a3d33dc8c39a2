#!/bin/sh
# Prepares Vault for rekeyd: the policy of policy.hcl, and a role of the auth method approle or kubernetes that has it
# and nothing else. Run again it changes nothing that is as it should be. Needs the vault command or OpenBao's bao, VAULT_ADDR
# (or BAO_ADDR, for bao) and a token that may do this.
#
#   deploy/vault/setup.sh approle
#       prints REKEYD_VAULT_ROLE_ID; make a secret id as the last line says.
#   deploy/vault/setup.sh kubernetes
#       binds the role to the service account NAMESPACE/SERVICE_ACCOUNT, for tokens made for AUDIENCE. Where the mount has
#       no configuration yet, it is given KUBERNETES_HOST and, if they are set, KUBERNETES_CA_CERT (a file) and
#       TOKEN_REVIEWER_JWT (a file): without the last, Vault reviews tokens as itself, or with the token under review.
#
# Environment, with what is meant where it is not set:
#   POLICY=rekeyd ROLE=rekeyd MOUNT=(the method's name) TOKEN_TTL=1h TOKEN_MAX_TTL=24h
#   SECRET_ID_TTL=2160h SECRET_ID_NUM_USES=0 (approle: how long a secret id works, and for how many logins; 0: without an end)
#   NAMESPACE=rekeyd SERVICE_ACCOUNT=rekeyd AUDIENCE=vault KUBERNETES_HOST=https://kubernetes.default.svc
set -eu

die() { printf 'setup.sh: %s\n' "$*" >&2; exit 1; }
say() { printf '%s\n' "$*" >&2; }

method=${1:-}
case $method in
approle | kubernetes) ;;
*) die "say which auth method: setup.sh approle, or setup.sh kubernetes" ;;
esac
if ! command -v vault >/dev/null; then
  command -v bao >/dev/null || die "neither the vault command nor bao is installed"
  vault() { bao "$@"; }
fi
POLICY=${POLICY:-rekeyd} ROLE=${ROLE:-rekeyd} MOUNT=${MOUNT:-$method} TOKEN_TTL=${TOKEN_TTL:-1h} TOKEN_MAX_TTL=${TOKEN_MAX_TTL:-24h}
SECRET_ID_TTL=${SECRET_ID_TTL:-2160h} SECRET_ID_NUM_USES=${SECRET_ID_NUM_USES:-0}

# The policy, written only where it differs.
file=$(dirname "$0")/policy.hcl
if [ "$(vault policy read "$POLICY" 2>/dev/null)" = "$(cat "$file")" ]; then
  say "policy $POLICY is as it should be"
else
  vault policy write "$POLICY" "$file" >&2
fi

# The mount.
if vault auth list -format=json | grep -q "\"$MOUNT/\""; then
  say "auth mount $MOUNT is there"
else
  vault auth enable -path="$MOUNT" "$method" >&2
fi

# Tokens of the role have this policy alone, not even Vault's default one, and are renewed by the daemon.
tokens="token_policies=$POLICY token_no_default_policy=true token_ttl=$TOKEN_TTL token_max_ttl=$TOKEN_MAX_TTL"

if [ "$method" = approle ]; then
  # shellcheck disable=SC2086 # words, on purpose
  vault write "auth/$MOUNT/role/$ROLE" $tokens "secret_id_ttl=$SECRET_ID_TTL" "secret_id_num_uses=$SECRET_ID_NUM_USES" >&2
  printf 'REKEYD_VAULT_AUTH=approle\nREKEYD_VAULT_AUTH_MOUNT=%s\nREKEYD_VAULT_ROLE_ID=%s\n' \
    "$MOUNT" "$(vault read -field=role_id "auth/$MOUNT/role/$ROLE/role-id")"
  say "secret ids of this role work for $SECRET_ID_TTL (SECRET_ID_TTL); put a new one in the place of the old one before: rekeyd takes it at its next login"
  say "a secret id, wrapped for the way: vault write -wrap-ttl=5m -field=wrapping_token -f auth/$MOUNT/role/$ROLE/secret-id"
  exit 0
fi

if ! vault read "auth/$MOUNT/config" >/dev/null 2>&1; then
  set -- "kubernetes_host=${KUBERNETES_HOST:-https://kubernetes.default.svc}"
  [ -z "${KUBERNETES_CA_CERT:-}" ] || set -- "$@" "kubernetes_ca_cert=@$KUBERNETES_CA_CERT"
  [ -z "${TOKEN_REVIEWER_JWT:-}" ] || set -- "$@" "token_reviewer_jwt=@$TOKEN_REVIEWER_JWT"
  vault write "auth/$MOUNT/config" "$@" >&2
fi
# shellcheck disable=SC2086 # words, on purpose
vault write "auth/$MOUNT/role/$ROLE" $tokens "bound_service_account_names=${SERVICE_ACCOUNT:-rekeyd}" \
  "bound_service_account_namespaces=${NAMESPACE:-rekeyd}" "audience=${AUDIENCE:-vault}" >&2
printf 'REKEYD_VAULT_AUTH=kubernetes\nREKEYD_VAULT_AUTH_MOUNT=%s\nREKEYD_VAULT_ROLE=%s\n' "$MOUNT" "$ROLE"
