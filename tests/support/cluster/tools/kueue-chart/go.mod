module maft/tests/cluster/tools/kueue-chart

go 1.26.0

// For its files alone: the chart in charts/kueue, with the CustomResourceDefinitions.
require sigs.k8s.io/kueue v0.17.0
