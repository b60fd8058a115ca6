{{- define "quorate.name" -}}
{{ printf "%s-operator" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "quorate.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "quorate.name" .) }}
{{- end }}

{{- /* Never changes: a Deployment's selector cannot. NetworkPolicies of limiters admit pods by the first of these. */ -}}
{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}
