#!/usr/bin/env bash
# Builds the image and lets it rotate a key: rekeyd in its container, a real Vault with deploy/vault/policy.hcl, the
# simulator. Needs root, buildah, jq, curl, Go and CA roots; neither a registry nor a container daemon.
# It is built twice, for amd64 and arm64, from the stand-ins of stand-ins.sh: same source, same digest. What is not for
# this machine cannot be run here; of that, the binary's header is read.
#
#   VAULT_BIN   a Vault binary; else vault on the PATH, else the one that `make vault` builds
#   KEEP=1      keep the working folder, and say where it is
set -euo pipefail
cd "$(dirname "$0")/.."

readonly version=v0.0.0-imagetest revision=0123456789abcdef
readonly max_megabytes=35
readonly account=svcacc_image
work=$(mktemp -d)
started=()

say() { printf 'image-test: %s\n' "$*"; }
fail() {
  printf 'image-test: FAILED: %s\n' "$*" >&2
  for log in "$work"/*.log; do
    [ -s "$log" ] && { echo "--- the end of ${log##*/}" >&2; tail -n 15 "$log" >&2; }
  done
  exit 1
}

. deploy/stand-ins.sh

# below PID: its descendants.
below() {
  local child
  for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do
    echo "$child"
    below "$child"
  done
}

cleanup() {
  local pid all=()
  for pid in "${started[@]}"; do
    mapfile -t -O "${#all[@]}" all < <(below "$pid"; echo "$pid")
  done
  for pid in "${all[@]}"; do kill "$pid" 2>/dev/null || true; done
  for pid in "${all[@]}"; do
    timeout 10 tail --pid="$pid" -f /dev/null || kill -KILL "$pid" 2>/dev/null || true
  done
  box rm --all >/dev/null 2>&1 || true
  if [ -n "${KEEP:-}" ]; then say "kept $work"; else rm -rf "$work"; fi
}
trap cleanup EXIT

# until_done SECONDS COMMAND...: tries the command until it succeeds.
until_done() {
  local deadline=$((SECONDS + $1))
  shift
  until "$@"; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.3
  done
}

free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return; }
  done
}

# build NAME: the image as `make image` builds it, into the folder of that name.
build() {
  VERSION=$version REVISION=$revision SOURCE_DATE_EPOCH=1700000000 BUILDAH=$box_command IMAGE_OPTIONS=$build_options \
    deploy/image.sh "$work/$1" >"$work/build.log" 2>&1 || fail "building the image"
}

# reproduce: twice, and the second time the files of the source are younger.
reproduce() {
  build image
  touch cmd/rekeyd/main.go
  build again
  diff -r "$work/image" "$work/again" || fail "the same source gave two images"
  say "built twice, the same digest: $(tail -n 1 "$work/build.log" | cut -d ' ' -f 2)"
}

# inspect: what the image says about itself, and what is in it, for both architectures. The container and its root that
# stay are of this machine's.
inspect() {
  local host other
  host=$(go env GOARCH)
  for other in amd64 arm64; do [ $other = "$host" ] || open $other; done
  open "$host"
  # shellcheck disable=SC2086 # words, on purpose
  box build --quiet $build_options --build-arg BUILDPLATFORM=linux/"$host" --target elevensim --tag localhost/elevensim . \
    >"$work/build.log" 2>&1 || fail "building the image of the simulator"
  in_image version | grep -qF "$version (revision $revision)" || fail "rekeyd version in the image says $(in_image version)"
}

# open ARCHITECTURE: opens the image. That the binary is for it is in the ELF header.
declare -A machine_of=([amd64]=62 [arm64]=183)
open() {
  local config megabytes shells machine
  container=$(cd "$work" && box from --quiet --pull-always --arch "$1" oci:image 2>>from.log) || fail "opening the image for $1"
  config=$(box inspect "$container" | jq -c '.Config | fromjson')
  jq -e --arg v $version --arg r $revision --arg a "$1" '.architecture == $a and (.config |
    .User == "65532:65532" and .Entrypoint == ["/rekeyd"] and .Cmd == ["run"] and (.ExposedPorts | has("9466/tcp"))
    and .Healthcheck.Test == ["CMD", "/rekeyd", "health"]
    and (.Labels | .["org.opencontainers.image.version"] == $v and .["org.opencontainers.image.revision"] == $r
      and .["org.opencontainers.image.licenses"] == "Apache-2.0"))
  ' <<<"$config" >/dev/null || fail "the configuration of the image for $1 is $config"

  root=$(box mount "$container")
  machine=$(od -An -tu2 -j18 -N2 "$root/rekeyd")
  [ "$machine" -eq "${machine_of[$1]}" ] || fail "the binary for $1 is for machine $machine"
  megabytes=$(du -sm --apparent-size "$root" | cut -f1)
  [ "$megabytes" -lt $max_megabytes ] || fail "the image for $1 has $megabytes MB, and may have $max_megabytes"
  shells=$(find "$root" \( -name '*sh' -o -name busybox \) -type f -perm /111)
  [ -z "$shells" ] || fail "there is a shell in the image: $shells"
  [ -s "$root/licenses/LICENSE" ] && grep -qF '==== github.com/hashicorp/vault/api ' "$root/licenses/THIRD_PARTY" || fail "the licences are not in the image"
  [ -s "$root/etc/ssl/certs/ca-certificates.crt" ] || fail "there are no CA roots in the image"
  say "image for $1: $megabytes MB, user 65532, no shell"
}

# in_image [OPTION... --] COMMAND: runs rekeyd as the image would, by its own entry point and user.
in_image() {
  local options=()
  if [[ " $* " == *" -- "* ]]; then
    while [ "$1" != -- ]; do options+=("$1"); shift; done
    shift
  fi
  box run --isolation chroot "${options[@]}" "$container" -- /rekeyd "$@"
}

start_vault() {
  local binary
  binary=$(go run ./internal/vaulttest/vaultbin)
  vault=http://127.0.0.1:$(free_port)
  HOME=$work VAULT_DEV_ROOT_TOKEN_ID=root-token-of-a-test VAULT_DEV_LISTEN_ADDRESS=${vault#http://} \
    "$binary" server -dev -dev-no-store-token >"$work/vault.log" 2>&1 &
  started+=($!)
  echo 'X-Vault-Token: root-token-of-a-test' >"$work/root.header"
  until_done 60 as_root secret/config -o /dev/null || fail "Vault does not come up"
  as_root sys/policies/acl/rekeyd -X PUT --data "$(jq -Rs '{policy: .}' deploy/vault/policy.hcl)"
  as_root auth/token/create --data '{"policies": ["rekeyd"], "no_default_policy": true, "period": "1h"}' |
    jq -r .auth.client_token >"$work/etc/vault-token"
}

# as_root PATH [OPTION...]: a call to Vault.
as_root() {
  local path=$1
  shift
  curl -fsS --max-time 10 -H "@$work/root.header" "$@" "$vault/v1/$path" 2>>"$work/curl.log"
}

start_simulator() {
  go build -o "$work/elevensim" ./cmd/elevensim
  echo sk_admin_of_a_test >"$work/etc/admin-key"
  echo 'xi-api-key: sk_admin_of_a_test' >"$work/admin.header"
  ELEVENSIM_ADMIN_KEY=sk_admin_of_a_test "$work/elevensim" --listen 127.0.0.1:0 --account $account=image >"$work/elevensim.log" 2>&1 &
  started+=($!)
  until_done 20 grep -qs '^elevensim listening on ' "$work/elevensim.log" || fail "the simulator does not come up"
  simulator=$(sed -n 's/^elevensim listening on \(http[^,]*\),.*/\1/p' "$work/elevensim.log")
}

start_rekeyd() {
  cat >"$work/etc/policies.yaml" <<YAML
policies:
  - name: image
    service_account: $account
    schedule: "@every 5s"
    overlap: 1s
    quarantine: 1s
    max_age: 1h
    permissions: [text_to_speech, user_read]
    sink: {path: elevenlabs/image}
YAML
  chown -R 65532:65532 "$work/etc"
  metrics=127.0.0.1:$(free_port)
  in_image --volume "$work/etc:/etc/rekeyd:ro" \
    --env REKEYD_POLICY_FILE=/etc/rekeyd/policies.yaml --env REKEYD_MIN_INTERVAL=1s --env REKEYD_RECONCILE_INTERVAL=1s \
    --env REKEYD_LISTEN_ADDR="$metrics" --env REKEYD_LOG_LEVEL=debug --env REKEYD_API_RATE=50 \
    --env ELEVENLABS_BASE_URL="$simulator" --env ELEVENLABS_API_KEY_FILE=/etc/rekeyd/admin-key \
    --env VAULT_ADDR="$vault" --env VAULT_TOKEN_FILE=/etc/rekeyd/vault-token \
    -- run >"$work/rekeyd.log" 2>&1 &
  box_pid=$!
  started+=("$box_pid")
}

record() { as_root secret/data/elevenlabs/image | jq -c .data.data; }
has_record() { record >"$work/record" && [ -s "$work/record" ] && jq -e '.api_key and .key_id' "$work/record" >/dev/null; }
has_rotated() { has_record && jq -e --arg first "$1" '.key_id != $first' "$work/record" >/dev/null; }
keys() { curl -fsS --max-time 10 -H "@$work/admin.header" "$simulator/v1/service-accounts/$account/api-keys"; }
is_gone() { keys | jq -e --arg id "$1" '.["api-keys"] | all(.key_id != $id)' >/dev/null; }
metric() { curl -fsS --max-time 10 "http://$metrics/metrics" | awk -v m="$1" '$1 == m {print $2}'; }

# rekeyd_pid: its process, which buildah started below itself.
rekeyd_pid() {
  local pid
  for pid in $(below "$box_pid"); do
    if [ "$(tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1)" = /rekeyd ]; then echo "$pid"; fi
  done
}

rotate() {
  local first pid status=0
  touch "$work/before"
  start_rekeyd
  until_done 60 has_record || fail "no record in Vault"
  first=$(jq -r .key_id "$work/record")
  pid=$(rekeyd_pid)
  [[ "$pid" =~ ^[0-9]+$ ]] || fail "not one process of rekeyd was found, but: $pid"
  [ "$(awk '/^Uid:/ {print $2, $3}' "/proc/$pid/status")" = "65532 65532" ] || fail "rekeyd does not run as user 65532"

  until_done 60 has_rotated "$first" || fail "the first key was not replaced"
  jq -r '"xi-api-key: " + .api_key' "$work/record" >"$work/issued.header"
  curl -fsS --max-time 10 -o /dev/null -H "@$work/issued.header" "$simulator/v1/user" || fail "the key in Vault does not work"
  until_done 30 is_gone "$first" || fail "the first key was not retired: $(keys)"
  [ "$(metric 'rekeyd_rotations_total{policy="image",result="success"}')" -ge 2 ] || fail "the metric does not count two rotations"
  [ "$(metric 'rekeyd_rotations_total{policy="image",result="failure"}')" -eq 0 ] || fail "the metric counts a failure"

  names_exist
  [ "$(healthy)" = ok ] || fail "the health check says $(healthy)"
  kill -TERM "$pid"
  wait "$box_pid" || status=$?
  [ "$status" -eq 0 ] || fail "exit status $status after SIGTERM"
  ! healthy 2>/dev/null || fail "the health check takes a daemon that has ended for healthy"
  nothing_written
  no_secret_logged
  say "rotation: first key made, replaced, retired; SIGTERM: exit status 0; nothing written to the image's root"
}

# healthy: the image's health check, in the container that runs.
healthy() {
  in_image --volume "$work/etc:/etc/rekeyd:ro" --env REKEYD_POLICY_FILE=/etc/rekeyd/policies.yaml --env REKEYD_LISTEN_ADDR="$metrics" \
    --env ELEVENLABS_API_KEY_FILE=/etc/rekeyd/admin-key --env VAULT_ADDR="$vault" --env VAULT_TOKEN_FILE=/etc/rekeyd/vault-token -- health
}

# names_exist: the metrics that alerts and dashboard ask for are there, or are documented: some exist only once it happened.
names_exist() {
  local name
  curl -fsS --max-time 10 "http://$metrics/metrics" >"$work/metrics"
  for name in $(grep -ohE 'rekeyd_[a-z_]+' deploy/prometheus/alerts.yaml deploy/grafana/rekeyd.json | sort -u); do
    grep -qE "^$name[{ ]" "$work/metrics" || grep -qF "\`$name\`" docs/metrics.md ||
      fail "alerts or dashboard use $name, which /metrics does not have"
  done
}

# nothing_written: a read-only root is enough. The mount points are buildah's.
nothing_written() {
  local written
  written=$(find "$root" -newer "$work/before" -type f -not -path '*/etc/hosts' -not -path '*/etc/resolv.conf' -not -path '*/run/.containerenv')
  [ -z "$written" ] || fail "rekeyd wrote into the image's root: $written"
}

no_secret_logged() {
  local secret
  while read -r secret; do
    ! grep -qF "$secret" "$work/rekeyd.log" || fail "a secret is in the log"
  done < <(cat "$work/etc/admin-key" "$work/etc/vault-token" && jq -r .api_key "$work/record")
}

needs
mkdir "$work/etc"
make_stand_ins
reproduce
inspect
start_vault
start_simulator
rotate
say "passed in $SECONDS s"
