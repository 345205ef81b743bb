{{/*
The DaemonSet of one pool of nodes: of `root`, with the settings `agent`, named by `pool` (empty for all nodes that are
in no pool). `expressions` says which nodes are in it.
*/}}
{{- define "checkpoint-keeper.agentDaemonSet" -}}
{{- $root := .root -}}
{{- $agent := .agent -}}
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: {{ include "checkpoint-keeper.agent" $root }}{{ with .pool }}-{{ . }}{{ end }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "checkpoint-keeper.labels" $root | nindent 4 }}
    app.kubernetes.io/component: agent
spec:
  selector:
    matchLabels:
      app.kubernetes.io/name: checkpoint-keeper
      app.kubernetes.io/component: agent
      checkpoint-keeper.io/pool: {{ .pool | default "default" }}
  updateStrategy:
    type: RollingUpdate
    rollingUpdate:
      # A node without its agent for a while keeps all its archives. Never two at once: the second finds the
      # directory locked, and waits.
      maxUnavailable: {{ $agent.maxUnavailable }}
      maxSurge: 0
  template:
    metadata:
      labels:
        app.kubernetes.io/name: checkpoint-keeper
        app.kubernetes.io/component: agent
        checkpoint-keeper.io/pool: {{ .pool | default "default" }}
        {{- with merge (dict) $agent.labels $root.Values.labels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      annotations:
        {{- toYaml (merge (dict) $agent.annotations (dict "kubectl.kubernetes.io/default-container" "agent")) | nindent 8 }}
    spec:
      serviceAccountName: {{ include "checkpoint-keeper.agent" $root }}
      automountServiceAccountToken: true
      enableServiceLinks: false
      {{- with $root.Values.imagePullSecrets }}
      imagePullSecrets:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with $agent.priorityClassName }}
      # Where disks run full, this is what frees them: it is not to be evicted with what filled them.
      priorityClassName: {{ quote . }}
      {{- end }}
      {{- with $agent.nodeSelector }}
      nodeSelector:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      # Nodes that can have checkpoints: not those that the image is not for, nor virtual ones, which have no disk and
      # no kubelet of their own.
      affinity:
        nodeAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
            nodeSelectorTerms:
              - matchExpressions:
                  - key: kubernetes.io/arch
                    operator: In
                    values: {{ toJson $agent.architectures }}
                  {{- range concat .expressions $agent.nodeExpressions }}
                  - {{ toYaml . | nindent 20 | trim }}
                  {{- end }}
      {{- with $agent.tolerations }}
      # Every node that has a kubelet may have checkpoints.
      tolerations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      # What is being deleted when it is told to end is finished first.
      terminationGracePeriodSeconds: {{ int $agent.terminationGracePeriodSeconds }}
      securityContext:
        # The directory is root's, and no other user may enter it. Root without a capability is a file's owner and
        # no more.
        runAsUser: 0
        runAsGroup: 0
        {{- with $agent.seLinuxType }}
        # Where SELinux is on, confined types may not read what the kubelet writes. Elsewhere this means nothing.
        seLinuxOptions:
          type: {{ quote . }}
        {{- end }}
        seccompProfile:
          type: RuntimeDefault
      containers:
        - name: agent
          image: {{ include "checkpoint-keeper.image" $root }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          # Where the older checkpoint-restore-operator is installed in another namespace than its own defaults,
          # checkpoint-restore-operator and checkpoint-restore-operator-system, both this and the controller must be
          # told, or they do not see that it runs: "--other-operator-namespace=NAMESPACE,…"
          # Where no authority of the cluster vouches for the kubelets' certificates, as their default is, checkpoints
          # are made once the agent knows the one of its node. To the lists below add, each to its own:
          #   args:         - --kubelet-certificate=/kubelet.crt
          #   volumeMounts: - {name: kubelet-certificate, mountPath: /kubelet.crt, readOnly: true}
          #   volumes:      - {name: kubelet-certificate, hostPath: {path: /var/lib/kubelet/pki/kubelet.crt, type: File}}
          # The type matters: with another one a file that is missing would be made, and the kubelet stumble over it.
          command: [/checkpoint-keeper]
          args:
            - agent
            {{- include "checkpoint-keeper.args" $root | nindent 12 | trimSuffix "\n            " }}
            {{- if ne $agent.kubeletRootDir "/var/lib/kubelet" }}
            - --directory={{ $agent.kubeletRootDir }}/checkpoints
            {{- end }}
            {{- if ne (int $agent.inventoryLimit) 100 }}
            - --inventory-limit={{ int $agent.inventoryLimit }}
            {{- end }}
            {{- if ne (int $agent.kubelet.port) 10250 }}
            - --kubelet-port={{ $agent.kubelet.port }}
            {{- end }}
            {{- if $agent.kubelet.useNodeCertificate }}
            - --kubelet-certificate=/kubelet.crt
            {{- end }}
            {{- with $agent.extraArgs }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          env:
            # Where the kubelet is asked for checkpoints.
            - name: HOST_IP
              valueFrom: {fieldRef: {fieldPath: status.hostIP}}
            - name: NODE_NAME
              valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
            - name: POD_NAMESPACE
              valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
            {{- with $agent.extraEnv }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
          ports:
            - name: http
              containerPort: {{ $root.Values.metricsPort }}
          {{- include "checkpoint-keeper.probes" . | nindent 10 }}
          # No limit of CPU: a sweep is short, and better over soon.
          resources:
            {{- toYaml $agent.resources | nindent 12 }}
          securityContext:
            allowPrivilegeEscalation: false
            readOnlyRootFilesystem: true
            capabilities:
              drop: [ALL]
          volumeMounts:
            - name: checkpoints
              mountPath: {{ $agent.kubeletRootDir }}/checkpoints
            - name: state
              mountPath: /var/lib/checkpoint-keeper
            {{- if $agent.kubelet.useNodeCertificate }}
            - name: kubelet-certificate
              mountPath: /kubelet.crt
              readOnly: true
            {{- end }}
            {{- with $agent.extraVolumeMounts }}
            {{- toYaml . | nindent 12 }}
            {{- end }}
      volumes:
        # The kubelet makes this directory when it starts. Where its root is another one, it is mounted at its own path, and
        # --directory=PATH among the agent's and the controller's arguments says so in reports.
        # On a node without it an empty one is made, so that no roll-out waits for that node.
        - name: checkpoints
          hostPath: {path: {{ $agent.kubeletRootDir }}/checkpoints, type: {{ $agent.checkpointDirectoryType }}}
        # What was read of archives, and what cannot be learned again, outlives the pod.
        - name: state
          hostPath: {path: {{ $agent.stateDirectory }}, type: DirectoryOrCreate}
        {{- if $agent.kubelet.useNodeCertificate }}
        # The type matters: with another one a file that is missing would be made, and the kubelet stumble over it.
        - name: kubelet-certificate
          hostPath: {path: {{ $agent.kubeletRootDir }}/pki/kubelet.crt, type: File}
        {{- end }}
        {{- with $agent.extraVolumes }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
{{- end -}}
