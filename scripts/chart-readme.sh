#!/bin/sh
# Writes charts/maft/README.md from README.md.gotmpl and the comments of values.yaml.
set -eu
cd "$(dirname "$0")/.."
exec "$(scripts/build-tool.sh helm-docs)/helm-docs" --log-level warning --chart-search-root charts --sort-values-order file "$@"
