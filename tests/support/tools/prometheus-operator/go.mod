module maft/tests/tools/prometheus-operator

go 1.26.0

// For its files alone: the CustomResourceDefinitions in example/prometheus-operator-crd.
require github.com/prometheus-operator/prometheus-operator v0.85.0
