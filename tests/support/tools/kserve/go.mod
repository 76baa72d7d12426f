module maft/tests/tools/kserve

go 1.26.0

// For its files alone: the CustomResourceDefinitions in config/crd/full.
require github.com/kserve/kserve v0.17.0
