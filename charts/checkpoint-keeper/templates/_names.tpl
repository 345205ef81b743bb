{{/*
What the names of objects begin with: the release's name, with the chart's name where that is not part of it. 40
characters leave room for the longest ending (-checkpoints-by-users, and the hash that a pod's name ends with).
*/}}
{{- define "checkpoint-keeper.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- regexReplaceAll "[-.]+$" (trunc 40 .Release.Name) "" -}}
{{- else -}}
{{- regexReplaceAll "[-.]+$" (printf "%s-%s" .Release.Name $name | trunc 40) "" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The agents' service account, and every object that is about agents. */}}
{{- define "checkpoint-keeper.agent" -}}
{{ include "checkpoint-keeper.fullname" . }}-agent
{{- end -}}

{{/* The controller's service account, and every object that is about the controller. */}}
{{- define "checkpoint-keeper.controller" -}}
{{ include "checkpoint-keeper.fullname" . }}-controller
{{- end -}}

{{/* The agents' user name, as the API server knows it. */}}
{{- define "checkpoint-keeper.agentUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "checkpoint-keeper.agent" . }}
{{- end -}}

{{/* The controller's user name, as the API server knows it. */}}
{{- define "checkpoint-keeper.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "checkpoint-keeper.controller" . }}
{{- end -}}

{{/*
Labels of every object. By the first one and app.kubernetes.io/component the controller finds the agents' pods, so it
does not follow the release's name.
*/}}
{{- define "checkpoint-keeper.labels" -}}
{{ include "checkpoint-keeper.labelsAnd" (dict "root" . "labels" dict) }}
{{- end -}}

{{/* The same of `root`, with further `labels`. */}}
{{- define "checkpoint-keeper.labelsAnd" -}}
{{- $root := .root -}}
app.kubernetes.io/name: checkpoint-keeper
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with merge (dict) .labels $root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The image, by its digest where there is one. */}}
{{- define "checkpoint-keeper.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Whether this is OpenShift, where pods need SecurityContextConstraints: true, or nothing. */}}
{{- define "checkpoint-keeper.openshift" -}}
{{- $enabled := .Values.openshift.scc -}}
{{- if kindIs "string" $enabled -}}
{{- $enabled = .Capabilities.APIVersions.Has "security.openshift.io/v1/SecurityContextConstraints" -}}
{{- end -}}
{{- if $enabled }}true{{ end -}}
{{- end -}}

{{/* The arguments that agents and controller share. */}}
{{- define "checkpoint-keeper.args" -}}
{{- with .Values.clusterPolicyNamespaces }}
- --cluster-policy-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.otherOperatorNamespaces }}
- --other-operator-namespace={{ join "," . }}
{{- end }}
{{- with .Values.log.level }}
- {{ printf "--log-level=%s" . | quote }}
{{- end }}
{{- with .Values.log.format }}
- --log-format={{ . }}
{{- end }}
{{- if ne (int .Values.metricsPort) 9464 }}
- --listen=[::]:{{ .Values.metricsPort }}
{{- end }}
{{- end -}}

{{/* Probes of both. Patient: a program that is busy is not one that hangs. */}}
{{- define "checkpoint-keeper.probes" -}}
# Patient: a program that is busy is not one that hangs.
livenessProbe:
  httpGet: {path: /livez, port: http}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: http}
  periodSeconds: 10
  timeoutSeconds: 5
{{- end -}}
