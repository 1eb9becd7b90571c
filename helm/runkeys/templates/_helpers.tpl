{{/*
Sets the defaults of values that are missing: helm leaves out what `--set NAME=null` removes, and all that is newer than
the values which `--reuse-values` keeps. Every template begins with this.
*/}}
{{- define "runkeys.defaults" -}}
{{- include "runkeys.fill" (list .Values (.Files.Get "files/defaults.yaml" | fromYaml)) -}}
{{- end }}

{{/* Sets what of a map is missing from another one. Sprig's merge takes false and 0 for missing. */}}
{{- define "runkeys.fill" -}}
{{- $values := first . -}}
{{- range $key, $default := last . -}}
{{- if or (not (hasKey $values $key)) (kindIs "invalid" (get $values $key)) -}}
{{- $_ := set $values $key $default -}}
{{- else if kindIs "map" $default -}}
{{- include "runkeys.fill" (list (get $values $key) $default) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The name of all objects: the release's name, plus the chart's name unless the release's name contains it. */}}
{{- define "runkeys.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{ .Release.Name }}
{{- else -}}
{{ .Release.Name }}-{{ .Chart.Name }}
{{- end -}}
{{- end }}

{{/*
A name with a suffix for Jobs, Services and labels, which take 63 characters: "list . suffix". A release's name has at most
53, so all of it stays.
*/}}
{{- define "runkeys.short" -}}
{{- $suffix := last . -}}
{{ include "runkeys.name" (first .) | trunc (int (sub 62 (len $suffix))) | trimSuffix "-" }}-{{ $suffix }}
{{- end }}

{{- define "runkeys.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- define "runkeys.labels" -}}
{{ include "runkeys.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels with others, which win: "list . others". */}}
{{- define "runkeys.labelsAnd" -}}
{{- $labels := include "runkeys.labels" (first .) | fromYaml -}}
{{- range $key, $value := last . -}}
{{- $_ := set $labels $key $value -}}
{{- end -}}
{{ toYaml $labels }}
{{- end }}

{{- define "runkeys.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- with .Values.image.digest }}@{{ . }}{{ end }}
{{- end }}

{{/* The operator's service account, as the subject of a role binding. */}}
{{- define "runkeys.subjects" -}}
- kind: ServiceAccount
  name: {{ include "runkeys.name" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end }}

{{/*
Exactly the rights that the operator uses. It can create and delete Secrets but cannot read any. Secrets
that bindings refer to are granted one by one, see sources.yaml. It has no right to finalizers, because it
sets none and does not use blockOwnerDeletion.
*/}}
{{- define "runkeys.rules" -}}
# patch: only to remove the sealed input from a finished run, and for the finalizer of a run with an open lease. The
# policies refuse any other patch of the operator.
- apiGroups: [runkeys.dev]
  resources: [workflowruns]
  verbs: [get, list, watch, patch, delete]
- apiGroups: [runkeys.dev]
  resources: [secretbindings]
  verbs: [get, list, watch]
- apiGroups: [runkeys.dev]
  resources: [workflowruns/status]
  verbs: [patch]
- apiGroups: [runkeys.dev]
  resources: [secretbindings/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch]
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create]
- apiGroups: [runkeys.dev]
  resources: [secretreveals]
  verbs: [get, list, watch, delete]
- apiGroups: [runkeys.dev]
  resources: [secretreveals/status]
  verbs: [patch]
- apiGroups: [authorization.k8s.io]
  resources: [localsubjectaccessreviews]
  verbs: [create]
{{- if .Values.sealedDelivery.enabled }}
# Sealed delivery: requests of pods are answered once and then deleted. sealed-delivery.yaml says for which signer.
- apiGroups: [certificates.k8s.io]
  resources: [podcertificaterequests]
  verbs: [list, watch, delete]
- apiGroups: [certificates.k8s.io]
  resources: [podcertificaterequests/status]
  verbs: [patch]
{{- end }}
{{- end }}

{{/* Labels and annotations of objects that exist only for a hook: .at, .weight, .root. */}}
{{- define "runkeys.hook" -}}
labels:
  {{- include "runkeys.labelsAnd" (list .root (dict "app.kubernetes.io/name" (printf "%s-hook" .root.Chart.Name))) | nindent 2 }}
annotations:
  helm.sh/hook: {{ .at }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* The pod of a hook: .root, .account, .args. It has the operator's image and settings, but another service account. */}}
{{- define "runkeys.hookPod" -}}
{{- with .root.Values -}}
serviceAccountName: {{ $.account }}
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
{{- with .imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  {{- with .runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: {{ first $.args }}
    image: {{ include "runkeys.image" $.root | quote }}
    imagePullPolicy: {{ .image.pullPolicy }}
    {{- with .watchNamespaces }}
    env:
      - name: RUNKEYS_NAMESPACES
        value: {{ join "," . | quote }}
    {{- end }}
    args:
      {{- toYaml $.args | nindent 6 }}
    resources:
      requests:
        cpu: 50m
        memory: 64Mi
      limits:
        memory: 256Mi
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The namespaces whose objects the policies apply to, as a label selector. Empty: all. */}}
{{- define "runkeys.served" -}}
{{- if .Values.watchNamespaces -}}
matchExpressions:
- key: kubernetes.io/metadata.name
  operator: In
  values:
  {{- range sortAlpha .Values.watchNamespaces }}
  - {{ . | quote }}
  {{- end }}
{{- else -}}
{}
{{- end }}
{{- end }}

{{/* Name suffix for cluster-wide objects, so that each release has its own. */}}
{{- define "runkeys.clusterName" -}}
{{ .Release.Namespace }}.{{ include "runkeys.name" . }}
{{- end }}

{{/* CEL: the audiences of SecretStores, as runkeys.policies.stores writes them. */}}
{{- define "runkeys.storeAudiences" -}}
{{- $audiences := list -}}
{{- if .Values.stores.enabled -}}
{{- if not .Values.stores.audiences -}}
{{- fail "stores.enabled needs stores.audiences: the audiences of your SecretStores, such as [bao]" -}}
{{- end -}}
{{- range .Values.stores.audiences -}}
{{- $audiences = append $audiences (printf "%q" .) -}}
{{- end -}}
{{- end -}}
[{{ join ", " $audiences }}]
{{- end }}

{{/* CEL: the resources of the container that unseals values in pods, as runkeys.policies.asking writes them. */}}
{{- define "runkeys.unsealResources" -}}
{{- $kinds := list -}}
{{- range $kind, $amounts := .Values.sealedDelivery.resources -}}
{{- $parts := list -}}
{{- range $name, $amount := $amounts -}}
{{- $parts = append $parts (printf "%q: %q" $name (toString $amount)) -}}
{{- end -}}
{{- $kinds = append $kinds (printf "%s: {%s}" $kind (join ", " $parts)) -}}
{{- end -}}
Object.spec.initContainers.resources{ {{- join ", " $kinds -}} }
{{- end }}
