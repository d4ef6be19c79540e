{{/* The name of the release, with the name of the chart. */}}
{{- define "conch.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" (.Release.Name | trunc 34 | trimSuffix "-") .Chart.Name }}
{{- end }}
{{- end }}

{{/* The name of the operator's objects: Deployment, Lease, roles. */}}
{{- define "conch.operator" -}}
{{ include "conch.fullname" . }}-operator
{{- end }}

{{- define "conch.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "conch.operator" .) }}
{{- else }}
{{- required "serviceAccount.name must name an existing ServiceAccount, as serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The selector of the operator's pods. A Deployment's selector is immutable. */}}
{{- define "conch.selector" -}}
app.kubernetes.io/name: conch
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "conch.labels" -}}
{{ include "conch.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image: repository:tag, or repository@digest. */}}
{{- define "conch.image" -}}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository .tag }}
{{- end }}
{{- end }}

{{/* The name of the metrics API's objects: Deployment, Service, roles. */}}
{{- define "conch.metricsApi" -}}
{{ include "conch.fullname" . }}-metrics-api
{{- end }}

{{/* The selector of the metrics API's pods. A Deployment's selector is immutable. */}}
{{- define "conch.metricsApiSelector" -}}
app.kubernetes.io/name: conch-metrics-api
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "conch.metricsApiLabels" -}}
{{ include "conch.metricsApiSelector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Fields of all pods of the chart. */}}
{{- define "conch.pod" -}}
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true  # the image's user is 65532; a cluster that assigns uids may set another
  seccompProfile:
    type: RuntimeDefault
{{- end }}

{{/* Fields of all containers of the chart. */}}
{{- define "conch.container" -}}
startupProbe:
  httpGet:
    path: /healthz
    port: probes
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet:
    path: /healthz
    port: probes
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet:
    path: /readyz
    port: probes
  periodSeconds: 5
  timeoutSeconds: 5
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end }}

{{/* Placement of the pods. `patience`: seconds until the eviction from a lost node, unless the values have tolerations. */}}
{{- define "conch.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .Values.tolerations }}
tolerations:
  {{- toYaml .Values.tolerations | nindent 2 }}
{{- else if hasKey . "patience" }}
tolerations:
  {{- range list "not-ready" "unreachable" }}
  - key: node.kubernetes.io/{{ . }}
    operator: Exists
    effect: NoExecute
    tolerationSeconds: {{ $.patience }}
  {{- end }}
{{- end }}
{{- with .Values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- /* The maximum size of a model, such as 50Gi,team-a=200Gi. */}}
{{- define "conch.maxModelBytes" -}}
{{- $sizes := without (list .Values.models.maxModelBytes) "" }}
{{- range $namespace, $size := .Values.models.maxModelBytesByNamespace }}
{{- $sizes = append $sizes (printf "%s=%s" $namespace $size) }}
{{- end }}
{{- join "," $sizes }}
{{- end }}
