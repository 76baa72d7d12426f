#!/bin/sh
# The steps of a release. release.yaml takes them against the public registry, scripts/release_check.py against one on this machine.
# A reference is REGISTRY/PATH@sha256:DIGEST, a prefix is what comes before /operator, /charts/maft and so on.
#
#   release.sh version TAG               prints the version, if TAG is v and the version of pyproject.toml
#   release.sh packages FOLDER PREFIX    makes wheel, sdist and chart; the chart's images are PREFIX/NAME
#   release.sh sbom FOLDER               makes the bill of materials (CycloneDX) of all packages that wheel and images pin
#   release.sh push-chart FOLDER PREFIX  pushes the chart as the OCI artifact PREFIX/charts/maft and prints its reference
#   release.sh sign REFERENCE            signs with the key COSIGN_KEY or, without one, as the workflow that runs
#   release.sh verify REFERENCE KEY      checks a signature that was made with a key
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

fail() { echo "release: $*" >&2; exit 1; }

project_version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$root/pyproject.toml"; }

# program NAME: from the PATH, or built by scripts/build-tool.sh
program() { command -v "$1" || echo "$("$root/scripts/build-tool.sh" "$1")/$1"; }

# python_tools: hatchling and uv, exactly those that build the wheel inside the images
python_tools() {
    pinned=$root/images/requirements/tools.txt
    tools=$root/.cache/release-tools-$(sha256sum "$pinned" | cut -c 1-12)
    [ -e "$tools/.ready" ] || {
        python3 -m venv --clear --without-pip "$tools"
        python3 -m pip --disable-pip-version-check --python "$tools" install --quiet --no-deps --require-hashes -r "$pinned" >&2
        touch "$tools/.ready"
    }
    echo "$tools/bin"
}

# plain_http PREFIX OPTION: prints the option for a registry on this machine, which has no certificate
plain_http() { case $1 in 127.0.0.1:* | localhost:*) echo "$2" ;; esac }

version() {
    [ "$1" = "v$(project_version)" ] || fail "the tag is $1, but the version in pyproject.toml is $(project_version)"
    project_version
}

packages() {
    mkdir -p "$1"
    folder=$(cd "$1" && pwd)
    (cd "$root" && "$(python_tools)/python" -m hatchling build --target sdist --target wheel --directory "$folder" >&2)
    chart=$(mktemp -d)
    trap 'rm -rf "$chart"' EXIT
    cp -R "$root/charts/maft" "$chart/maft"
    sed -i "s|^  prefix: \"\"\$|  prefix: $2|" "$chart/maft/values.yaml"
    grep -q "^  prefix: $2\$" "$chart/maft/values.yaml" || fail "values.yaml has no images.prefix to put $2 into"
    "$(program helm)" package "$chart/maft" --destination "$folder" >&2
}

sbom() {
    "$(python_tools)/uvx" --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements "$root/requirements/constraints.txt" \
        --pyproject "$root/pyproject.toml" --mc-type application --output-reproducible \
        --output-file "$1/maft-$(project_version).cdx.json"
}

push_chart() {
    # shellcheck disable=SC2046 # no option is no word
    said=$("$(program helm)" push "$1/maft-$(project_version).tgz" "oci://$2/charts" $(plain_http "$2" --plain-http) 2>&1) || fail "$said"
    digest=$(printf '%s\n' "$said" | sed -n 's/^Digest: *//p')
    [ -n "$digest" ] || fail "helm push named no digest: $said"
    echo "$2/charts/maft@$digest"
}

sign() {
    if [ -n "${COSIGN_KEY:-}" ]; then # no transparency log: nothing outside this machine is asked
        "$(program cosign)" sign --yes --key "$COSIGN_KEY" --use-signing-config=false --tlog-upload=false "$1"
    else
        "$(program cosign)" sign --yes "$1"
    fi
}

verify() { "$(program cosign)" verify --key "$2" --insecure-ignore-tlog=true "$1" >/dev/null; }

step=${1:-}
[ $# -eq 0 ] || shift
case "$step:$#" in
version:1) version "$1" ;;
packages:2) packages "$1" "$2" ;;
sbom:1) sbom "$1" ;;
push-chart:2) push_chart "$1" "$2" ;;
sign:1) sign "$1" ;;
verify:2) verify "$1" "$2" ;;
*) fail "usage: release.sh version TAG | packages FOLDER PREFIX | sbom FOLDER | push-chart FOLDER PREFIX | sign REFERENCE | verify REFERENCE KEY" ;;
esac
