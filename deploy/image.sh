#!/usr/bin/env bash
# Builds the image for amd64 and arm64 into the folder $1, as an OCI layout. The same source, base images and Go give the
# same digest, wherever and whenever it is built.
#
# Buildah's own docker format has the container's random name in it, and its OCI format has no health check, since the
# standard knows none. Docker looks for it in the image's configuration all the same, so it is put there.
#
#   VERSION REVISION    what the binary and the labels say
#   SOURCE_DATE_EPOCH   the time of the image and of all files in it, in seconds
#   BUILDAH             the command; IMAGE_OPTIONS: more options of its build
set -euo pipefail
cd "$(dirname "$0")/.."
readonly layout=$1 blobs=$1/blobs/sha256 list=rekeyd-$$
buildah=${BUILDAH:-buildah}

rm -rf "$layout"
# shellcheck disable=SC2086 # words, on purpose
last=$($buildah build --quiet ${IMAGE_OPTIONS:-} --format docker --no-cache --timestamp "$SOURCE_DATE_EPOCH" \
  --platform linux/amd64,linux/arm64 --manifest "$list" --build-arg BUILDPLATFORM="$(go env GOHOSTOS)/$(go env GOHOSTARCH)" \
  --build-arg VERSION="$VERSION" --build-arg REVISION="$REVISION" . | tail -n 1)
health=$($buildah inspect --type image "$last" | jq -c .Docker.config.Healthcheck)
$buildah manifest push --quiet --all --format oci "$list" "oci:$layout:$VERSION" >/dev/null
$buildah manifest rm "$list" >/dev/null

# change DIGEST JQ_ARGUMENT...: replaces a blob by what jq makes of it, and prints the new digest and size.
change() {
  local old=$blobs/${1#sha256:} digest
  shift
  jq -cj "$@" "$old" >"$layout/new"
  digest=$(sha256sum <"$layout/new" | cut -d ' ' -f 1)
  printf '{"digest": "sha256:%s", "size": %d}' "$digest" "$(stat -c %s "$layout/new")"
  rm "$old"
  mv "$layout/new" "$blobs/$digest"
}

index=$(jq -r '.manifests[0].digest' "$layout/index.json")
entries=
for manifest in $(jq -r '.manifests | sort_by(.platform.architecture)[].digest' "$blobs/${index#sha256:}"); do
  config=$(jq -r .config.digest "$blobs/${manifest#sha256:}")
  changed=$(change "$config" --argjson health "$health" '.config.Healthcheck = $health')
  changed=$(change "$manifest" --argjson config "$changed" '.config += $config')
  entries+="{\"$manifest\": $changed}"
done
changed=$(change "$index" --argjson new "$(jq -s add <<<"$entries")" \
  '.manifests |= (map(. + $new[.digest]) | sort_by(.platform.architecture))')
jq -cj --argjson index "$changed" '.manifests[0] += $index' "$layout/index.json" >"$layout/new"
mv "$layout/new" "$layout/index.json"
echo "$layout: $(jq -r .digest <<<"$changed")"
