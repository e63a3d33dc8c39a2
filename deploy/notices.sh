#!/bin/sh
# Prints the licences and notices of all that is linked into rekeyd for $GOOS and $GOARCH beside its own code: whoever
# passes the binary on has to pass these on as well.
set -eu
cd "$(dirname "$0")/.."

# of NAME FOLDER: what lies in a folder of that module.
of() {
  for file in "$2"/LICEN[CS]E* "$2"/COPYING* "$2"/NOTICE* "$2"/PATENTS*; do
    [ ! -f "$file" ] || case $file in
      *.go) ;;
      *) printf '==== %s: %s\n\n' "$1" "${file##*/}" && cat "$file" && printf '\n' ;;
    esac
  done
}

of "Go's standard library, $(go env GOVERSION)" "$(go env GOROOT)"
packages=$(go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}}
{{.Path}} {{.Version}} {{$.Dir}}{{end}}{{end}}' ./cmd/rekeyd)
printf '%s\n' "$packages" | sort -u | while read -r module version folder; do
  of "$module $version" "$folder"
done
