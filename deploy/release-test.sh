#!/usr/bin/env bash
# Makes a release twice, of two copies of the source in different folders, and looks at what came out. Needs what
# image-test.sh needs, and builds the image from the same stand-ins.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly number=0.0.0-releasetest revision=0123456789abcdef
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say() { printf 'release-test: %s\n' "$*"; }
fail() {
  printf 'release-test: FAILED: %s\n' "$*" >&2
  [ ! -s "$work/log" ] || tail -n 15 "$work/log" >&2
  exit 1
}

. deploy/stand-ins.sh

# release NAME VERSION: of a copy of the source in a folder of this name. What git ignores is not copied.
release() {
  mkdir -p "$work/$1"
  git ls-files --cached --others --exclude-standard -z | tar --create --null --files-from=- --ignore-failed-read | tar --extract --touch --directory "$work/$1"
  make -C "$work/$1" release VERSION="$2" REVISION=$revision EPOCH=1700000000 BUILDAH="$box_command" IMAGE_OPTIONS="$build_options" \
    >"$work/log" 2>&1
}

# What is not in the changelog is not released.
unknown() {
  ! release unknown v99.0.0 || fail "a version that the changelog does not know was released"
  grep -qF '[99.0.0]' "$work/log" || fail "nothing says what is missing in the changelog"
}

look() {
  local name binary image
  sha256sum --check --quiet SHA256SUMS || fail "the checksums are wrong"
  [ "$(wc -l <SHA256SUMS)" -eq "$(ls | grep -vcx SHA256SUMS)" ] || fail "not every file has a checksum"
  grep -qF 'rekeyd' notes.md || fail "the notes are: $(cat notes.md)"
  for name in linux darwin windows; do
    jq -e --arg v "v$number" '.bomFormat == "CycloneDX" and .metadata.component.version == $v
      and any(.components[]; .name == "github.com/hashicorp/vault/api" and .evidence.licenses[0].license.id == "MPL-2.0")
      and any(.components[]; .name == "std")' "rekeyd_${number}_$name.cdx.json" >/dev/null || fail "the parts of $name are not all there"
    for binary in "${name}_amd64" "${name}_arm64"; do tar -xzf "rekeyd_${number}_$binary.tar.gz" -C "$work"; done
  done
  for binary in "$work/rekeyd_${number}"_*; do
    [ -s "$binary/LICENSE" ] && grep -qF '==== github.com/hashicorp/vault/api ' "$binary/THIRD_PARTY" || fail "$binary lacks licences"
  done
  binary=$work/rekeyd_${number}_linux_$(go env GOARCH)/rekeyd
  [ "$("$binary" version)" = "rekeyd v$number (revision $revision)" ] || fail "the binary says: $("$binary" version)"
  [ -s "$work/rekeyd_${number}_windows_amd64/rekeyd.exe" ] || fail "there is no rekeyd.exe"
  [ "$(grep -c 'sha256 "[0-9a-f]\{64\}"' rekeyd.rb)" -eq 4 ] && ! grep -q @ rekeyd.rb || fail "the formula is not filled in"
  grep -qF "$(sha256sum <"rekeyd_${number}_darwin_arm64.tar.gz" | cut -d ' ' -f 1)" rekeyd.rb || fail "the formula has other checksums"
  image=$(box pull --quiet "oci-archive:rekeyd_${number}_image.oci.tar" 2>"$work/log") || fail "the archive of the image cannot be loaded"
  box inspect --type image "$image" | jq -e '.Config | fromjson.config.Healthcheck.Test == ["CMD", "/rekeyd", "health"]' >/dev/null ||
    fail "the image has no health check"
}

# installed looks at the Debian package as dpkg installs it, in a root of its own, and at what the RPM says of itself.
installed() {
  local root=$work/root admin=$work/root/var/lib/dpkg architecture
  architecture=$(go env GOARCH)
  mkdir -p "$admin/info" "$admin/updates"
  touch "$admin/status"
  dpkg --root="$root" --force-depends --install "rekeyd_${number}_linux_$architecture.deb" >"$work/log" 2>&1 || fail "dpkg does not install the package"
  [ "$("$root/usr/bin/rekeyd" version)" = "rekeyd v$number (revision $revision)" ] || fail "the package has another binary"
  mkdir "$work/unit" # systemd-analyze looks for the binary where the unit says, and knows no root of its own for it
  sed "s|/usr/bin/rekeyd|$root/usr/bin/rekeyd|" "$root/usr/lib/systemd/system/rekeyd.service" >"$work/unit/rekeyd.service"
  systemd-analyze verify --man=no "$work/unit/rekeyd.service" >"$work/log" 2>&1 || fail "systemd does not like the unit"
  ! grep -v RestartSteps "$work/log" | grep -v RestartMaxDelaySec || fail "systemd warns about the unit"
  "$root/usr/bin/rekeyd" check "$root/usr/share/doc/rekeyd/examples/policies.yaml" >"$work/log" 2>&1 || fail "the example policies have faults"
  for file in usr/share/man/man1/rekeyd-rotate.1.gz usr/share/bash-completion/completions/rekeyd usr/share/zsh/vendor-completions/_rekeyd \
    usr/share/fish/vendor_completions.d/rekeyd.fish usr/share/doc/rekeyd/copyright usr/share/doc/rekeyd/vault/policy.hcl etc/rekeyd/rekeyd.env; do
    [ -s "$root/$file" ] || fail "the package lacks /$file"
  done
  dpkg --root="$root" --purge rekeyd >"$work/log" 2>&1 && [ ! -e "$root/etc/rekeyd" ] || fail "dpkg does not remove the package"
  head -c 4 "rekeyd_${number}_linux_amd64.rpm" | grep -qaF "$(printf '\355\253\356\333')" || fail "the RPM is none"
}

needs make dpkg systemd-analyze
make_stand_ins
unknown
for copy in one two; do release $copy "v$number" || fail "making a release"; done
diff "$work/one/dist/release/SHA256SUMS" "$work/two/dist/release/SHA256SUMS" || fail "two releases of one source differ"
(cd "$work/one/dist/release" && look && installed)
say "made twice, every file the same: passed in $SECONDS s"
