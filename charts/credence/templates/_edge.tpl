{{- /*
The roles of the edge, each with a Deployment, a ServiceAccount and a namespace of its own. A further role is one more line here
and one more block of values: `serve` is what `credence edge --serve` gets, `name` names the objects, `values` is the block, and
`port` names the port that callers use. Every template below gets the `root`, the `role` and its `values`.
*/}}
{{- define "credence.edgeRoles" -}}
- {serve: webhooks, name: credence-edge, values: edge, port: webhooks}
- {serve: tokens, name: credence-tokens, values: tokens, port: tokens}
{{- end }}

{{- define "credence.edgeLabels" -}}
{{ include "credence.edgeSelector" . }}
{{ include "credence.release" .root }}
{{- end }}

{{- define "credence.edgeSelector" -}}
app.kubernetes.io/name: {{ .role.name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end }}

{{- define "credence.edgeRole" }}
{{- if .values.enabled }}
{{- if and (eq .role.serve "webhooks") (gt (int .values.replicaCount) 1) (not (.values.redis).urlSecret) }}
{{- fail "edge.replicaCount: more than 1 needs edge.redis.urlSecret, the Secret with the URL of a Redis. Without a shared delivery history, each replica would accept the replay of a delivery that another one has accepted" }}
{{- end }}
{{- if and (eq .role.serve "tokens") .root.Values.edge.enabled (eq .values.namespace .root.Values.edge.namespace) }}
{{- fail "tokens.namespace: use another namespace than edge.namespace. Otherwise the edge, which faces the Internet, could read the keys that tokens are signed with" }}
{{- end }}
# The role has a namespace of its own: a reader of its Secrets gets its routes or issuers with their keys, and its certificate,
# and nothing of the operator or of another role.
apiVersion: v1
kind: Namespace
metadata:
  name: {{ .values.namespace }}
  labels:
    {{- include "credence.edgeLabels" . | nindent 4 }}
    pod-security.kubernetes.io/enforce: restricted
    pod-security.kubernetes.io/audit: restricted
    pod-security.kubernetes.io/warn: restricted
  # Neither Helm nor Argo CD deletes it with the release, or when the role is disabled: all routes would go with it.
  annotations:
    helm.sh/resource-policy: keep
    argocd.argoproj.io/sync-options: Prune=false,Delete=false
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
---
# It reads what the operator hands to it and its certificates, and writes reports. It has no permissions in any other namespace; where it is to act as
# a ServiceAccount, that namespace grants it (docs/kinds/webhookendpoint.md).
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
rules:
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create, patch, delete]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ .role.name }}
subjects:
- kind: ServiceAccount
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
spec:
  replicas: {{ .values.replicaCount }}
  selector:
    matchLabels: {{- include "credence.edgeSelector" . | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "credence.edgeSelector" . | nindent 8 }}
        {{- with .values.podLabels }}{{ toYaml . | nindent 8 }}{{ end }}
      {{- with .values.podAnnotations }}
      annotations: {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ .role.name }}
      {{- with .root.Values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 6 }}
      {{- end }}
      securityContext:
        runAsNonRoot: true
        runAsUser: 65532
        runAsGroup: 65532
        seccompProfile: {type: RuntimeDefault}
      terminationGracePeriodSeconds: {{ .values.terminationGracePeriodSeconds }}
      containers:
      - name: edge
        image: {{ include "credence.image" .root | quote }}
        imagePullPolicy: {{ .root.Values.image.pullPolicy }}
        args:
        - edge
        - --serve={{ .role.serve }}
        - --namespace={{ .values.namespace }}
        - --certificate-secret={{ .values.certificateSecret }}
        {{- range .values.servingCertificates }}
        - --serving-certificate-secret={{ . }}
        {{- end }}
        - --cluster-domain={{ .root.Values.clusterDomain }}
        {{- with .values.threads }}
        - --threads={{ . }}
        {{- end }}
        {{- with .values.audit }}
        - --audit-when-full={{ .whenFull | lower }}
        - --audit-queue-bytes={{ int .queueBytes }}
        {{- end }}
        {{- with .values.serviceAddress }}
        - --service-address={{ . }}
        {{- end }}
        {{- with .root.Values.loopbackAddress }}
        - --loopback-address={{ . }}
        {{- end }}
        {{- range $allowed := .values.allowedDestinations }}
        {{- if kindIs "string" $allowed }}
        - --allow-destinations={{ $allowed }}
        {{- else }}
        {{- range $allowed.namespaces }}
        - --allow-destinations={{ . }}={{ $allowed.network }}
        {{- end }}
        {{- end }}
        {{- end }}
        - --log-format={{ .root.Values.log.format }}
        - --listen=0.0.0.0:8443
        - --listen-metrics=0.0.0.0:{{ .root.Values.port }}
        env:
        - {name: RUST_LOG, value: {{ .root.Values.log.level | quote }}}
        - name: POD_NAME
          valueFrom: {fieldRef: {fieldPath: metadata.name}}
        {{- with (.values.redis).urlSecret }}
        - name: CREDENCE_REDIS_URL
          valueFrom: {secretKeyRef: {name: {{ . }}, key: url}}
        {{- end }}
        - name: POD_UID
          valueFrom: {fieldRef: {fieldPath: metadata.uid}}
        ports:
        - {name: {{ .role.port }}, containerPort: 8443}
        - {name: http, containerPort: {{ .root.Values.port }}}
        livenessProbe:
          httpGet: {path: /healthz, port: http}
          periodSeconds: 20
        readinessProbe:
          httpGet: {path: /readyz, port: http}
          periodSeconds: 5
        # Until every node knows that this pod takes no more connections; those would be refused.
        lifecycle: {preStop: {sleep: {seconds: 5}}}
        securityContext:
          allowPrivilegeEscalation: false
          readOnlyRootFilesystem: true
          capabilities: {drop: [ALL]}
        resources: {{- toYaml .values.resources | nindent 10 }}
      {{- include "credence.placement" .values | nindent 6 }}
---
apiVersion: v1
kind: Service
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
spec:
  type: {{ .values.serviceType }}
  # Keeps the address of the caller, which source policies and rates depend on.
  {{- if ne .values.serviceType "ClusterIP" }}
  externalTrafficPolicy: Local
  {{- end }}
  selector: {{- include "credence.edgeSelector" . | nindent 4 }}
  ports:
  - {name: {{ .role.port }}, port: 443, targetPort: {{ .role.port }}}
{{- end }}
{{- end }}

{{- define "credence.edgeNetworkPolicy" }}
{{- if and .values.enabled (include "credence.networkPolicies" .root) }}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels: {{- include "credence.edgeSelector" . | nindent 6 }}
  policyTypes: [Ingress{{ if .values.networkPolicy.egress }}, Egress{{ end }}]
  ingress:
  # Each webhook has its own source policy, and the token issuer asks for a certificate.
  - ports: [{port: {{ .role.port }}}]
  {{- with include "credence.metricsIngress" .root | trim }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with .values.networkPolicy.egress }}
  egress: {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "credence.edgePodDisruptionBudget" }}
{{- if and .values.enabled .values.podDisruptionBudget.enabled }}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .role.name }}
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
spec:
  minAvailable: 1
  selector:
    matchLabels: {{- include "credence.edgeSelector" . | nindent 6 }}
{{- end }}
{{- end }}

{{- define "credence.edgeMetricsService" }}
{{- if and .values.enabled (or .root.Values.metrics.service.enabled .root.Values.metrics.serviceMonitor.enabled) }}
apiVersion: v1
kind: Service
metadata:
  name: {{ .role.name }}-metrics
  namespace: {{ .values.namespace }}
  labels: {{- include "credence.edgeLabels" . | nindent 4 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "credence.edgeSelector" . | nindent 4 }}
  ports:
  - {name: http, port: {{ .root.Values.port }}, targetPort: http}
{{- end }}
{{- end }}

{{- define "credence.edgeServiceMonitor" }}
{{- if .values.enabled }}
{{- with .root.Values.metrics.serviceMonitor }}
{{- if .enabled }}
apiVersion: monitoring.coreos.com/v1
kind: ServiceMonitor
metadata:
  name: {{ $.role.name }}
  namespace: {{ $.values.namespace }}
  labels:
    {{- include "credence.edgeLabels" $ | nindent 4 }}
    {{- with .labels }}{{ toYaml . | nindent 4 }}{{ end }}
spec:
  # The Service for webhooks has the same labels, and no such port.
  selector:
    matchLabels: {{- include "credence.edgeSelector" $ | nindent 6 }}
  endpoints:
  - port: http
    interval: {{ .interval }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
