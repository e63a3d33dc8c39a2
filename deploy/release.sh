#!/usr/bin/env bash
# Makes a release in the folder $1: an archive for each platform, packages for Debian and for RPM, a formula for Homebrew, a list of
# the parts (CycloneDX) for each operating system, the image as an OCI archive, the notes from CHANGELOG.md, and checksums of all
# that. The same commit and the same Go give the same files, whenever and in whatever folder. Needs GNU tar, buildah and jq, and what
# image.sh says of the environment.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 022
export LC_ALL=C CGO_ENABLED=0
readonly dist=$1 number=${VERSION#v}
readonly cyclonedx=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
readonly nfpm=github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
# The daemon runs on Linux; commands run everywhere.
readonly platforms="linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack FOLDER NAME...: a tar of these in the folder, in which nothing tells who made it, where or when.
pack() {
  local folder=$1
  shift
  tar --create --directory "$folder" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner \
    --mode=u=rwX,go=rX --format=gnu "$@"
}

# notes: the section on this version. What has no number is as yet unreleased.
notes() {
  local section=Unreleased
  [[ ! "$VERSION" =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || section=$number
  awk -v wanted="[$section]" '$1 == "##" {inside = $2 == wanted; next} inside' CHANGELOG.md | sed '/./,$!d' >"$dist/notes.md"
  [ -s "$dist/notes.md" ] || { echo "release: CHANGELOG.md says nothing under ## [$section]; write it there first" >&2; exit 1; }
}

# archive OS ARCHITECTURE
archive() {
  local name=rekeyd_${number}_$1_$2 binary=rekeyd
  [ "$1" != windows ] || binary=rekeyd.exe
  mkdir "$work/$name"
  GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X main.version=$VERSION -X main.revision=$REVISION" -o "$work/$name/$binary" ./cmd/rekeyd
  cp -r LICENSE README.md CHANGELOG.md deploy/vault deploy/policies.schema.json deploy/man "$work/$name"
  GOOS=$1 GOARCH=$2 deploy/notices.sh >"$work/$name/THIRD_PARTY"
  [ "$1" != linux ] || cp deploy/systemd/rekeyd.service "$work/$name"
  pack "$work" "$name" | gzip -n >"$dist/$name.tar.gz"
}

# packages ARCHITECTURE: what is in that archive, in the places where Linux distributions want it.
packages() {
  local staged=$work/staged_$1 from=$work/rekeyd_${number}_linux_$1 shell
  mkdir -p "$staged/man" "$staged/completions"
  cp deploy/man/* "$staged/man"
  gzip -n -9 "$staged/man"/*
  for shell in bash zsh fish; do "$work/rekeyd_${number}_linux_$(go env GOHOSTARCH)/rekeyd" completion "$shell" >"$staged/completions/$shell"; done
  sed 's|/usr/local/bin/|/usr/bin/|' deploy/systemd/rekeyd.service >"$staged/rekeyd.service"
  cat deploy/debian-copyright "$from/THIRD_PARTY" >"$staged/copyright"
  find "$staged" -exec touch --date="@$SOURCE_DATE_EPOCH" {} +
  for kind in deb rpm; do
    ARCH=$1 VERSION=$number STAGED=$staged FROM=$from "$work/nfpm" package --config deploy/nfpm.yaml --packager "$kind" \
      --target "$dist/rekeyd_${number}_linux_$1.$kind" >/dev/null
  done
}

# formula: for a Homebrew tap.
formula() {
  local platform name
  local -a fill=(-e "s|@VERSION@|$number|" -e "s|@TAG@|$VERSION|")
  for platform in darwin_amd64 darwin_arm64 linux_amd64 linux_arm64; do
    name=rekeyd_${number}_$platform.tar.gz
    fill+=(-e "s|@SHA256_$platform@|$(sha256sum <"$dist/$name" | cut -d ' ' -f 1)|")
  done
  sed "${fill[@]}" deploy/homebrew.rb >"$dist/rekeyd.rb"
}

# parts OS: what its binaries were built from; both architectures are of the same modules. The licences are those found in the modules' sources, which
# the build has fetched and held against go.sum: nothing is looked for at the module proxy or the checksum database. Ours is known.
parts() {
  local binary=$work/rekeyd_${number}_$1_amd64/rekeyd
  [ "$1" != windows ] || binary+=.exe
  GOPROXY=off GOSUMDB=off "$work/cyclonedx-gomod" bin -json -licenses -std -noserial -notimestamp -version "$VERSION" "$binary" \
    2>"$work/parts.log" >"$work/parts.json" || { cat "$work/parts.log" >&2; exit 1; }
  jq '.metadata.component.licenses = [{license: {id: "Apache-2.0"}}]' "$work/parts.json" >"$dist/rekeyd_${number}_$1.cdx.json"
}

rm -rf "$dist"
mkdir -p "$dist"
notes
for tool in $cyclonedx $nfpm; do GOBIN=$work go install "$tool"; done
for platform in $platforms; do archive "${platform%/*}" "${platform#*/}"; done
for architecture in amd64 arm64; do packages $architecture; done
formula
for os in linux darwin windows; do parts $os; done
deploy/image.sh "$work/image"
pack "$work/image" blobs index.json oci-layout >"$dist/rekeyd_${number}_image.oci.tar"
(cd "$dist" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
ls -l "$dist"
