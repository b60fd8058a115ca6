# What runs on a node: containerd, kubelet and kube-proxy. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

node_certificates() {
  local name=$1
  certificate "$name" "/O=system:nodes/CN=system:node:$name" "DNS:$name,IP:$(node_address "$name")"
  kubeconfig "$run/$name.kubeconfig" "$api_server" "$name"
}

# node_boot NAME: the machine, its network, and containerd with the images that are there.
node_boot() {
  local name=$1
  machine_boot "$name"
  network_node "$name"
  node_configure "$name"
  machine_daemon "$name" containerd containerd --config /var/lib/config/containerd.toml
  await_daemon 60 "$name" containerd machine_run "$name" ctr version
}

# node_import NAME ARCHIVE
node_import() { machine_run "$1" ctr --namespace k8s.io images import --no-unpack - <"$2" >/dev/null; }

# node_serve NAME: needs the API server.
node_serve() {
  local name=$1
  machine_daemon "$name" kubelet kubelet --config=/var/lib/config/kubelet.yaml --kubeconfig="$run/$name.kubeconfig" \
    --hostname-override="$name" --node-ip="$(node_address "$name")"
  # The settings of connection tracking belong to the whole kernel; they stay as they are.
  machine_daemon "$name" kube-proxy kube-proxy --kubeconfig="$run/proxy.kubeconfig" --hostname-override="$name" \
    --proxy-mode=iptables --cluster-cidr="$pod_range" --conntrack-max-per-core=0 \
    --conntrack-tcp-timeout-established=0 --conntrack-tcp-timeout-close-wait=0
}

# All that kubelet and containerd write is below /var/lib and /run, which are the machine's own.
node_configure() {
  local name=$1 config=$run/$1/lib/config
  mkdir -p "$config/cni"
  # Not every root may let processes be killed later than others when memory runs out (restrict_oom_score_adj).
  cat >"$config/containerd.toml" <<EOF
version = 2
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/var/lib/config/cni"
EOF
  cat >"$config/cni/pods.conflist" <<EOF
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "pods", "isGateway": true, "hairpinMode": true,
   "ipam": {"type": "host-local", "dataDir": "/run/cni",
            "ranges": [[{"subnet": "$(node_pods "$name")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
EOF
  # The lease is renewed every 4 s (a quarter of it), so five renewals are missed before the node is taken for lost.
  cat >"$config/kubelet.yaml" <<EOF
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $pki/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $pki/$name.crt
tlsPrivateKeyFile: $pki/$name.key
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /$lab/$name
clusterDNS: [$dns_address]
clusterDomain: cluster.local
resolvConf: ""
failSwapOn: false
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
nodeLeaseDurationSeconds: 16
nodeStatusUpdateFrequency: 4s
volumePluginDir: /var/lib/kubelet/volume-plugins
EOF
}
