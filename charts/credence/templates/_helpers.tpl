{{- define "credence.labels" -}}
{{ include "credence.selector" . }}
{{ include "credence.release" . }}
{{- end }}

{{- define "credence.release" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "credence.selector" -}}
app.kubernetes.io/name: credence
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- /* Where pods are scheduled: called with all values for the operator, with those of its role for an edge. */}}
{{- define "credence.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 0 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 0 }}
{{- end }}
{{- end }}

{{- /* The image of the operator and of the edge. */}}
{{- define "credence.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ with .tag | default (ternary "" $.Chart.AppVersion (ne .digest "")) }}:{{ . }}{{ end }}{{ with .digest }}@{{ . }}{{ end }}
{{- end }}
{{- end }}

{{- /* Whether there are NetworkPolicies: "yes" or nothing. While it is not set, a release keeps what it was installed with. */}}
{{- define "credence.networkPolicies" -}}
{{- $enabled := .Values.networkPolicy.enabled }}
{{- if not (kindIs "bool" $enabled) }}
{{- $enabled = or .Release.IsInstall (lookup "networking.k8s.io/v1" "NetworkPolicy" .Release.Namespace "credence") }}
{{- end }}
{{- if $enabled }}yes{{ end }}
{{- end }}

{{- /* Who may scrape the metrics: rules of a NetworkPolicy, or nothing. */}}
{{- define "credence.metricsIngress" -}}
{{- $from := .Values.networkPolicy.metricsFrom }}
{{- if and (not $from) (not (kindIs "bool" .Values.networkPolicy.enabled)) }}
{{- $from = list (dict "namespaceSelector" dict) }}
{{- end }}
{{- with $from }}
- from: {{- toYaml . | nindent 2 }}
  ports: [{port: {{ $.Values.port }}}]
{{- end }}
{{- end }}
