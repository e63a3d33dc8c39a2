{{- /* Name of everything: the release's, with the chart's where that does not say it already. */}}
{{- define "rekeyd.name" -}}
{{- $name := ternary .Release.Name (printf "%s-rekeyd" .Release.Name) (contains "rekeyd" .Release.Name) -}}
{{- $name | trunc 63 | trimSuffix "-" -}}
{{- end }}

{{- define "rekeyd.selector" -}}
app.kubernetes.io/name: rekeyd
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "rekeyd.labels" -}}
{{ include "rekeyd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "rekeyd.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (include "rekeyd.name" .) }}
{{- end }}

{{- define "rekeyd.image" -}}
{{- with .Values.image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default (printf "v%s" $.Chart.AppVersion) }}
{{- end }}
{{- end }}
{{- end }}

{{- /* "true" where Vault is shown a token of the service account. */}}
{{- define "rekeyd.showsToken" -}}
{{- if has .Values.vault.auth (list "kubernetes" "jwt") }}true{{ end }}
{{- end }}

{{- /* The variables, as a mapping in YAML. */}}
{{- define "rekeyd.env" -}}
{{- $env := dict
  "REKEYD_POLICY_FILE" "/etc/rekeyd/policies/policies.yaml"
  "REKEYD_SHUTDOWN_TIMEOUT" (printf "%ds" (int .Values.shutdownSeconds))
  "VAULT_ADDR" .Values.vault.address
  "VAULT_NAMESPACE" .Values.vault.namespace
  "REKEYD_VAULT_AUTH" .Values.vault.auth
  "REKEYD_VAULT_AUTH_MOUNT" .Values.vault.authMount }}
{{- if include "rekeyd.showsToken" . }}
{{- $env = merge $env (dict "REKEYD_VAULT_ROLE" .Values.vault.role "REKEYD_VAULT_JWT_FILE" "/var/run/secrets/vault/token") }}
{{- end }}
{{- if .Values.vault.caConfigMap }}
{{- $_ := set $env "VAULT_CACERT" "/etc/rekeyd/vault-ca/ca.crt" }}
{{- end }}
{{- if .Values.webSecret }}
{{- $_ := set $env "REKEYD_WEB_CONFIG_FILE" "/etc/rekeyd/web/web.yaml" }}
{{- end }}
{{- range $name, $_ := .Values.secrets }}
{{- $_ := set $env (printf "%s_FILE" $name) (printf "/var/run/secrets/rekeyd/%s" $name) }}
{{- end }}
{{- range $name, $value := merge $env .Values.env }}
{{- if $value }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end }}
