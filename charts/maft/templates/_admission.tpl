{{- /* What the policies over runs, comparisons and societies have in common: their podTemplate, and where they hold. The dot is
.Values.admission of the chart, with `gpus`, what a GPU may be called, and `at`: spec, or spec.template. */ -}}
{{- define "maft.admission.ask" -}}
leave it out, or ask who installed maft
{{- end }}

{{- define "maft.admission.variables" -}}
{{- $template := .podTemplate }}
- name: template
  expression: "has(object.{{ .at }}.podTemplate) ? dyn(object.{{ .at }}.podTemplate) : dyn({})"
- name: metadata
  expression: "has(variables.template.metadata) && variables.template.metadata != null ? dyn(variables.template.metadata) : dyn({})"
- name: pod
  expression: "has(variables.template.spec) && variables.template.spec != null ? dyn(variables.template.spec) : dyn({})"
- name: containers # null is a heading with nothing below it
  expression: >-
    ((has(variables.pod.containers) && variables.pod.containers != null ? dyn(variables.pod.containers) : dyn([]))
    + (has(variables.pod.initContainers) && variables.pod.initContainers != null ? dyn(variables.pod.initContainers) : dyn([]))).filter(c, c != null)
- name: names
  expression: "variables.containers.map(c, has(c.name) && c.name != null ? string(c.name) : 'without a name')"
- name: ours
  expression: "['debate', 'trainer', 'inference']"
- name: otherFields
  expression: >-
    (variables.template.filter(k, !(k in ['metadata', 'spec']) || variables.template[k] == null)
    + variables.metadata.filter(k, !(k in ['labels', 'annotations']) || variables.metadata[k] == null).map(k, 'metadata.' + string(k))
    + variables.pod.filter(k, !(k in {{ $template.specFields | toJson }}))).map(k, string(k))
{{- range $part, $names := dict "labels" $template.labels "annotations" $template.annotations }}
- name: {{ $part }} # by labels pods are found and NetworkPolicies hold; webhooks and nodes give roles, secrets and profiles for annotations
  expression: >-
    (has(variables.metadata.{{ $part }}) && variables.metadata.{{ $part }} != null ? dyn(variables.metadata.{{ $part }}) : dyn({})).filter(k, !{{ $names | toJson }}.exists(p,
    k == p || (p.endsWith('/') && k.startsWith(p)))).map(k, string(k))
{{- end }}
- name: otherContainerFields
  expression: >-
    variables.containers.map(c, c.filter(k, !(k in {{ $template.containerFields | toJson }})).map(k, string(k))).filter(l, size(l) > 0)
- name: environment
  expression: >-
    variables.containers.filter(c, has(c.env) && c.env != null).map(c, c.env.filter(e, e != null && ((has(e.valueFrom) && e.valueFrom != null)
    || !(has(e.name) && e.name in {{ $template.environment | toJson }}))).map(e, has(e.name) && e.name != null ? string(e.name) : 'without a name')).filter(l,
    size(l) > 0)
- name: resources
  expression: >-
    variables.containers.filter(c, has(c.resources) && c.resources != null).map(c, ['requests', 'limits'].filter(p,
    p in c.resources && c.resources[p] != null).map(p,
    c.resources[p].filter(k, !(k in {{ concat (list "cpu" "memory" "ephemeral-storage") .gpus | toJson }})).map(k, string(k))).filter(l,
    size(l) > 0)).filter(l, size(l) > 0)
- name: volumes
  expression: >-
    (has(variables.pod.volumes) && variables.pod.volumes != null ? dyn(variables.pod.volumes) : dyn([])).filter(v, v != null
    && !v.all(k, k == 'name' || k in {{ $template.volumeTypes | toJson }})).map(v, has(v.name) && v.name != null ? string(v.name) : 'without a name')
{{- end }}

{{- define "maft.admission.validations" -}}
{{- $template := .podTemplate }}
- expression: size(variables.otherFields) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: ' + variables.otherFields.join(', ') + ' may not be set here; {{ include "maft.admission.ask" . }} (admission.podTemplate.specFields)'
{{- if not $template.sidecars }}
- expression: variables.names.all(n, n in variables.ours)
  messageExpression: >-
    '{{ $.at }}.podTemplate: the container ' + variables.names.filter(n, !(n in variables.ours)).join(', ')
    + ' is none of ' + variables.ours.join(', ') + '; {{ include "maft.admission.ask" . }} (admission.podTemplate.sidecars)'
{{- end }}
{{- range $part := list "labels" "annotations" }}
- expression: size(variables.{{ $part }}) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: the {{ trimSuffix "s" $part }} ' + variables.{{ $part }}.join(', ')
    + ' may not be set here; {{ include "maft.admission.ask" $ }} (admission.podTemplate.{{ $part }})'
{{- end }}
- expression: size(variables.otherContainerFields) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: ' + variables.otherContainerFields[0].join(', ')
    + ' may not be set of a container here; {{ include "maft.admission.ask" . }} (admission.podTemplate.containerFields)'
- expression: size(variables.environment) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: the variable ' + variables.environment[0].join(', ')
    + ' may not be set here; {{ include "maft.admission.ask" . }} (admission.podTemplate.environment)'
- expression: size(variables.resources) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: ' + variables.resources[0][0].join(', ') + ' may not be asked for here; {{ include "maft.admission.ask" . }} (admission.gpuResources)'
- expression: size(variables.volumes) == 0
  messageExpression: >-
    '{{ $.at }}.podTemplate: the volume ' + variables.volumes.join(', ')
    + ' is of a type that is not allowed here; {{ include "maft.admission.ask" . }} (admission.podTemplate.volumeTypes)'
{{- with .imagePrefixes }}
- expression: variables.images.all(i, {{ . | toJson }}.exists(p, i.startsWith(p)))
  messageExpression: >-
    'the image ' + variables.images.filter(i, !{{ . | toJson }}.exists(p, i.startsWith(p)))[0]
    + ' may not be used here, only {{ join ", " . }}; {{ include "maft.admission.ask" . }} (admission.imagePrefixes)'
{{- end }}
{{- with .secrets }}
- expression: variables.secrets.all(s, s in {{ . | toJson }})
  messageExpression: >-
    'the Secret ' + variables.secrets.filter(s, !(s in {{ . | toJson }})).join(', ')
    + ' may not be used here, only {{ join ", " . }}; {{ include "maft.admission.ask" . }} (admission.secrets)'
{{- end }}
{{- end }}

{{- /* The dot: root, and the suffix of the policy's name. */ -}}
{{- define "maft.admission.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  {{- include "maft.metadata" (dict "root" .root "cluster" true "suffix" .suffix) | nindent 2 }}
spec:
  policyName: {{ include "maft.object" (dict "root" .root "cluster" true "suffix" .suffix) | quote }}
  validationActions: [Deny]
  {{- $label := "kubernetes.io/metadata.name" }}
  {{- if or .root.Values.namespaces .root.Values.admission.exemptNamespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        {{- with .root.Values.namespaces }}
        - {key: {{ $label }}, operator: In, values: {{ . | toJson }}}
        {{- end }}
        {{- with .root.Values.admission.exemptNamespaces }}
        - {key: {{ $label }}, operator: NotIn, values: {{ . | toJson }}}
        {{- end }}
  {{- end }}
{{- end }}
