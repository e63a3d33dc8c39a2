#!/usr/bin/env bash
# Names the base images of the Dockerfile by the digests that their tags have now, so that a build later has the same bases. Needs
# skopeo and the registries. With --check: fails unless both are named by digest.
set -euo pipefail
cd "$(dirname "$0")/.."

for arg in BUILDER BASE; do
  image=$(sed -n "s|^ARG $arg=||p" Dockerfile)
  if [ "${1-}" = --check ]; then
    [[ "$image" =~ @sha256:[0-9a-f]{64}$ ]] || { echo "bases: $arg in the Dockerfile is $image, without a digest; run deploy/bases.sh and commit what it writes" >&2; exit 1; }
    continue
  fi
  tag=${image%@*}
  digest=$(skopeo inspect --no-tags --format '{{.Digest}}' "docker://$tag")
  sed -i "s|^ARG $arg=.*|ARG $arg=$tag@$digest|" Dockerfile
  echo "$arg=$tag@$digest"
done
