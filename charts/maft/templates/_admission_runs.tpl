{{- /* The policy over what has the spec of a run. The dot: .Values.admission of the chart, with `gpus` (what a GPU may be called), root,
resource and suffix (of the policy's name), and `at`, where that spec stands: spec, or spec.template. */ -}}
{{- define "maft.admission.runs" -}}
{{- $at := .at }}
{{- $ask := include "maft.admission.ask" . }}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  {{- include "maft.metadata" (dict "root" .root "cluster" true "suffix" .suffix) | nindent 2 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [maft.dev]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [{{ .resource }}]
  matchConditions: # a run that is there already stays as it is: it can be suspended, and goes
    - name: asks-for-something-else
      expression: >-
        request.operation == 'CREATE' || object.{{ $at }}.?podTemplate != oldObject.{{ $at }}.?podTemplate || object.{{ $at }}.?storage != oldObject.{{ $at }}.?storage
        || object.{{ $at }}.inference != oldObject.{{ $at }}.inference || object.{{ $at }}.model != oldObject.{{ $at }}.model
        || object.{{ $at }}.?agentOverrides != oldObject.{{ $at }}.?agentOverrides
        || object.{{ $at }}.task != oldObject.{{ $at }}.task || object.{{ $at }}.?evaluation != oldObject.{{ $at }}.?evaluation
        || object.{{ $at }}.?gpuResource != oldObject.{{ $at }}.?gpuResource
        || object.{{ $at }}.?workloadPriorityClass != oldObject.{{ $at }}.?workloadPriorityClass || object.{{ $at }}.?export != oldObject.{{ $at }}.?export
  variables:
    {{- include "maft.admission.variables" . | nindent 4 }}
    - name: images
      expression: >-
        (object.{{ $at }}.inference.image == '' ? [] : [object.{{ $at }}.inference.image])
        + variables.containers.filter(c, has(c.image) && c.image != null).map(c, string(c.image))
    - name: models # that agents have of their own; they never change
      expression: object.{{ $at }}.?agentOverrides.orValue([]).filter(o, has(o.model)).map(o, o.model)
    - name: sources
      expression: >-
        [object.{{ $at }}.model.source, object.{{ $at }}.task.source, object.{{ $at }}.task.heldOutSource]
        + (has(object.{{ $at }}.evaluation.task) ? [object.{{ $at }}.evaluation.task.source] : []) + variables.models.map(m, m.source)
    - name: urls # : and / as a program decodes them; what else is written with % is refused
      expression: >-
        variables.sources.filter(s, s.contains('://') && !s.startsWith('file:///'))
        .map(s, s.replace('%3A', ':').replace('%3a', ':').replace('%2F', '/').replace('%2f', '/'))
    - name: endpoints # a bucket without one is Amazon's; of a URL that may be read in two ways the whole, which is no server that is allowed
      expression: >-
        (has(object.{{ $at }}.storage) ? [has(object.{{ $at }}.storage.endpoint) ? object.{{ $at }}.storage.endpoint : 'https://amazonaws.com'] : [])
        + variables.urls.map(s, s.matches('^s3://[^?#]*([?]region=[^?#&;%+=]*)?$') ? 'https://amazonaws.com'
        : s.matches('^s3://[^?#]*[?](region=[^?#&;%+=]*&)?endpoint=[^?#&;%+=]*(&region=[^?#&;%+=]*)?$')
        ? s.split('?')[1].split('endpoint=')[1].split('&')[0] : s)
    - name: exports # a definition of before has none
      expression: object.{{ $at }}.?export.orValue([])
    - name: secrets
      expression: >-
        (has(object.{{ $at }}.storage) && has(object.{{ $at }}.storage.credentialsSecret) ? [object.{{ $at }}.storage.credentialsSecret.name] : [])
        + (has(object.{{ $at }}.model.tokenSecret) ? [object.{{ $at }}.model.tokenSecret.name] : [])
        + variables.exports.filter(e, has(e.tokenSecret)).map(e, e.tokenSecret.name)
    - name: targets # hosts; that of the hub is not the run's to choose
      expression: >-
        variables.exports.map(e, e.to == 'hub' ? 'huggingface.co'
        : url('https://' + (e.address.contains('://') ? e.address.split('://')[1] : e.address).split('/')[0].split('#')[0]).getHostname().lowerAscii())
    - name: flags
      expression: >-
        object.{{ $at }}.inference.extraArgs.filter(a, a.startsWith('-') && !({{ .vllmFlags | toJson }}.exists(f, a == f || a.startsWith(f + '='))))
  validations:
    {{- include "maft.admission.validations" . | nindent 4 }}
    - expression: object.{{ $at }}.gpuResource == '' || object.{{ $at }}.gpuResource in {{ $.gpus | toJson }}
      messageExpression: >-
        '{{ $at }}.gpuResource: ' + object.{{ $at }}.gpuResource + ' may not be asked for here, only {{ join ", " $.gpus }}; {{ $ask }} (admission.gpuResources)'
    - expression: object.{{ $at }}.model.cacheClaim == '' || object.{{ $at }}.model.cacheClaim in {{ .cacheClaims | toJson }}
      messageExpression: >-
        '{{ $at }}.model.cacheClaim: ' + object.{{ $at }}.model.cacheClaim + ' may not be used here; {{ $ask }} (admission.cacheClaims)'
    - expression: object.{{ $at }}.workloadPriorityClass == '' || object.{{ $at }}.workloadPriorityClass in {{ .workloadPriorityClasses | toJson }}
      messageExpression: >-
        '{{ $at }}.workloadPriorityClass: ' + object.{{ $at }}.workloadPriorityClass + ' may not be used here; {{ $ask }} (admission.workloadPriorityClasses)'
    {{- with .endpointHosts }}
    - expression: >-
        variables.endpoints.all(e, isURL(e) && e.matches('^https?://([A-Za-z0-9._-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]+)?/?$') && {{ . | toJson }}.exists(h,
        h == url(e).getHostname().lowerAscii() || (h.startsWith('.') && url(e).getHostname().lowerAscii().endsWith(h))))
      messageExpression: >-
        'an S3 server of ' + variables.endpoints.join(', ') + ' may not be used here, only {{ join ", " . }}; {{ $ask }} (admission.endpointHosts)'
    {{- end }}
    {{- with .exportHosts }}
    - expression: variables.targets.all(t, {{ . | toJson }}.exists(h, h == t || (h.startsWith('.') && t.endsWith(h))))
      messageExpression: >-
        '{{ $at }}.export: ' + variables.targets.join(', ') + ' may not get what runs make, only {{ join ", " . }}; {{ $ask }} (admission.exportHosts)'
    {{- end }}
    {{- if not .trustRemoteCode }}
    - expression: "!object.{{ $at }}.model.trustRemoteCode"
      message: "{{ $at }}.model.trustRemoteCode: may not be true here; {{ $ask }} (admission.trustRemoteCode)"
    - expression: variables.models.all(m, !has(m.trustRemoteCode) || !m.trustRemoteCode)
      message: "{{ $at }}.agentOverrides.model.trustRemoteCode: may not be true here; {{ $ask }} (admission.trustRemoteCode)"
    {{- end }}
    - expression: size(variables.flags) == 0
      messageExpression: >-
        '{{ $at }}.inference.extraArgs: ' + variables.flags.join(', ') + ' may not be given here; {{ $ask }} (admission.vllmFlags)'
{{- end }}
