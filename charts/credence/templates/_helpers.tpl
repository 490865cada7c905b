{{- define "credence.labels" -}}
app.kubernetes.io/name: credence
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "credence.selector" -}}
app.kubernetes.io/name: credence
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "credence.edgeSelector" -}}
app.kubernetes.io/name: credence-edge
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}
