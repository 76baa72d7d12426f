{{/* Of the operator's objects: maft-operator for a release called maft. */}}
{{- define "maft.name" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if hasSuffix "operator" .Release.Name -}}
{{- .Release.Name -}}
{{- else if contains "maft" .Release.Name -}}
{{- printf "%s-operator" (.Release.Name | trunc 40) -}}
{{- else -}}
{{- printf "%s-maft-operator" (.Release.Name | trunc 40) -}}
{{- end -}}
{{- end }}

{{/* Of one of them. Where `namespaces` leaves room for a second release, what stands where that one's could (`shared`) ends with our
namespace, which has no dot. Takes root; optional: suffix, cluster or shared. */}}
{{- define "maft.object" -}}
{{- include "maft.name" .root }}{{ with .suffix }}-{{ . }}{{ end }}
{{- if and .root.Values.namespaces (or .cluster .shared) }}.{{ .root.Release.Namespace }}{{ end -}}
{{- end }}

{{/* NAMESPACE/RELEASE that a CustomResourceDefinition belongs to, `kubectl` where it is nobody's of Helm, or nothing where it is ours or
not there. `helm template` sees none. Takes root and name. */}}
{{- define "maft.crd-owner" -}}
{{- $crd := lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" .name -}}
{{- if $crd -}}
{{- $notes := dig "metadata" "annotations" dict $crd | default dict -}}
{{- $name := get $notes "meta.helm.sh/release-name" -}}
{{- $owner := printf "%s/%s" (get $notes "meta.helm.sh/release-namespace") $name -}}
{{- if not $name -}}
kubectl
{{- else if ne $owner (printf "%s/%s" .root.Release.Namespace .root.Release.Name) -}}
{{- $owner -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The same of the definition of runs: who has that one has the others, too. */}}
{{- define "maft.crds-owner" -}}
{{- include "maft.crd-owner" (dict "root" . "name" "multiagentfinetunes.maft.dev") -}}
{{- end }}

{{/* `true`, or nothing: whether a definition is made. Takes root and name. */}}
{{- define "maft.crd" -}}
{{- $install := toString .root.Values.crds.install -}}
{{- if or (eq $install "true") (and (eq $install "auto") (not (include "maft.crds-owner" .root)) (not (include "maft.crd-owner" .))) -}}true{{- end -}}
{{- end }}

{{/* Where its metrics are. */}}
{{- define "maft.host" -}}
{{- printf "%s.%s.svc" (include "maft.name" .) .Release.Namespace -}}
{{- end }}

{{- define "maft.url" -}}
{{- printf "%s://%s:8080" (empty .Values.metrics.tls.secretName | ternary "http" "https") (include "maft.host" .) -}}
{{- end }}

{{- define "maft.account" -}}
{{- .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "maft.name" .) "default") -}}
{{- end }}

{{/* The image of a role. Takes root and role. */}}
{{- define "maft.image" -}}
{{- $own := index .root.Values.images .role }}
{{- $repository := $own.repository }}
{{- if not $repository }}
{{- $repository = printf "%s/%s" (include "maft.prefix" .root) .role }}
{{- end }}
{{- if or $own.tag (not $own.digest) }}
{{- $repository = printf "%s:%s" $repository ($own.tag | default (include "maft.tag" .root)) }}
{{- end }}
{{- $repository }}{{ with $own.digest }}@{{ . }}{{ end }}
{{- end }}

{{- define "maft.prefix" -}}
{{- required "images.prefix: not set; name where nodes find the images, such as registry.example.com/maft (make images builds them)" .Values.images.prefix | trimSuffix "/" -}}
{{- end }}

{{- define "maft.tag" -}}
{{- .Values.images.tag | default .Chart.AppVersion -}}
{{- end }}

{{/* What finds the operator's pods. */}}
{{- define "maft.selector" -}}
app.kubernetes.io/name: maft-operator
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* Of every object; nobody's labels replace what finds things. Takes root; optional: labels. */}}
{{- define "maft.labels" -}}
{{- $fixed := include "maft.selector" .root | fromYaml }}
{{- $_ := set $fixed "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- $_ := set $fixed "app.kubernetes.io/part-of" "maft" }}
{{- $_ := set $fixed "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- $_ := set $fixed "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version) }}
{{- merge $fixed (.labels | default dict) .root.Values.labels | toYaml }}
{{- end }}

{{/* Name, namespace and labels. Takes root; optional: suffix, cluster (no namespace), shared (maft.object), namespace, labels. */}}
{{- define "maft.metadata" -}}
name: {{ include "maft.object" . | quote }}
{{- if not .cluster }}
namespace: {{ .namespace | default .root.Release.Namespace | quote }}
{{- end }}
labels:
  {{- include "maft.labels" . | nindent 2 }}
{{- end }}

{{/* `true`, or nothing: whether objects of the Prometheus Operator's API are wanted. Takes root and enabled. */}}
{{- define "maft.monitored" -}}
{{- if eq (toString .enabled) "auto" -}}
{{- if .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" }}true{{ end -}}
{{- else if .enabled -}}
true
{{- end -}}
{{- end }}

{{/* What the operator may do in the namespaces that it serves: maft_operator/cluster/rbac.py, which a test compares. */}}
{{- define "maft.rules" -}}
- apiGroups: [maft.dev]
  resources: [multiagentfinetunes]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [maft.dev]
  resources: [multiagentfinetunes/status]
  verbs: [patch]
- apiGroups: [maft.dev]
  resources: [multiagentcomparisons]
  verbs: [get, list, watch, delete]
- apiGroups: [maft.dev]
  resources: [multiagentcomparisons/status]
  verbs: [patch]
- apiGroups: [maft.dev]
  resources: [societies]
  verbs: [get, list, watch]
- apiGroups: [maft.dev]
  resources: [societies/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [networking.k8s.io]
  resources: [ingresses]
  verbs: [list, create, patch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- if .Values.serverKeys }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- end }}
{{- if .Values.networkPolicy.workloads }}
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, create, patch, delete]
{{- end }}
{{- end }}

{{/* A binding's two ends. Takes root, kind and role. */}}
{{- define "maft.binding" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .role | quote }}
subjects:
  - kind: ServiceAccount
    name: {{ include "maft.account" .root | quote }}
    namespace: {{ .root.Release.Namespace | quote }}
{{- end }}
