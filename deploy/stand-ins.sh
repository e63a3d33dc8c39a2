# shellcheck shell=bash
# For the tests of the image, to be sourced: builds without a registry or a container daemon. The Dockerfile's two base
# images are replaced by stand-ins made here: the builder is an empty root into which this machine's /usr and Go are
# mounted, the base has what distroless/static has and rekeyd uses. Only the images' contents beside rekeyd differ from
# those that users get.
#
# Everything of buildah's is in the folder $work. box runs buildah there; make_stand_ins makes the two images; and
# build_options is what box build needs beside its target and the folder.

box_command="buildah --storage-driver vfs --root $work/store --runroot $work/run"
box() { $box_command "$@"; }

# stand_in NAME OPTION...: makes the image localhost/NAME of the root that fill_NAME makes, configured by the options.
stand_in() {
  local name=$1 container root
  shift
  container=$(box from scratch)
  root=$(box mount "$container")
  "fill_$name" "$root"
  box unmount "$container" >/dev/null
  box config "$@" "$container"
  box commit --quiet --timestamp 0 --rm "$container" "localhost/$name" >/dev/null
}

fill_builder() {
  mkdir -p "$1"/{usr,goroot,go/pkg/mod,root/.cache/go-build,etc,tmp}
  local link
  for link in bin lib lib64; do
    [ -L "/$link" ] && ln -s "usr/$link" "$1/$link"
  done
  return 0
}

fill_base() {
  mkdir -p "$1"/etc/ssl/certs "$1"/{proc,sys,dev,home/nonroot}
  mkdir -m 1777 "$1/tmp"
  cp -L /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"
  echo 'nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin' >"$1/etc/passwd"
  echo 'nonroot:x:65532:' >"$1/etc/group"
  chown 65532:65532 "$1/home/nonroot"
}

make_stand_ins() {
  go mod download
  stand_in builder --env PATH=/goroot/bin:/usr/bin --env GOROOT=/goroot --env GOPATH=/go \
    --env GOPROXY=off --env GOTOOLCHAIN=local --env HOME=/root
  stand_in base --user 65532
  build_options="--isolation chroot --pull-never --build-arg BUILDER=localhost/builder --build-arg BASE=localhost/base
    --volume /usr:/usr:ro --volume $(go env GOROOT):/goroot:ro
    --volume $(go env GOMODCACHE):/go/pkg/mod --volume $(go env GOCACHE):/root/.cache/go-build"
}

# needs TOOL...: what the tests of the image cannot do without.
needs() {
  local tool
  [ "$(id -u)" -eq 0 ] || fail "only root can mount the image; run it as root"
  for tool in buildah jq curl go "$@"; do command -v "$tool" >/dev/null || fail "$tool is not installed"; done
  [ -s /etc/ssl/certs/ca-certificates.crt ] || fail "there are no CA roots; install ca-certificates"
}
