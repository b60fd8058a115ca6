# etcd and the control plane, in the machine "control". Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

api_server=https://$control_address:6443

control_certificates() {
  certificate api-server /CN=kube-apiserver \
    "DNS:localhost,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc,IP:127.0.0.1,IP:$control_address,IP:$api_service_address"
  # The API server's name towards kubelets, for `kubectl exec`, `logs` and `port-forward`.
  certificate kubelet-client /O=system:masters/CN=kube-apiserver-kubelet-client
  certificate admin /O=system:masters/CN=admin
  certificate controller-manager /CN=system:kube-controller-manager
  certificate scheduler /CN=system:kube-scheduler
  certificate proxy /CN=system:kube-proxy
  kubeconfig "$run/controller-manager.kubeconfig" "$api_server" controller-manager
  kubeconfig "$run/scheduler.kubeconfig" "$api_server" scheduler
  kubeconfig "$run/proxy.kubeconfig" "$api_server" proxy
  # The one for people and tests, on the host; and for programs that run in a machine of the cluster.
  kubeconfig "$run/inside.kubeconfig" "$api_server" admin
  kubeconfig "$KUBECONFIG" "https://127.0.0.1:$port" admin
}

control_start_etcd() {
  machine_daemon control etcd etcd --data-dir /var/lib/etcd --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
}

control_start_api_server() {
  # What those asked that the tests watch, and whether they were allowed to.
  cat >"$run/control/lib/audit.yaml" <<EOF
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts:quorate-system"]}
- {level: None}
EOF
  # Where owner references are checked, as some distributions do, objects need more rights to be made.
  machine_daemon control kube-apiserver kube-apiserver \
    --etcd-servers=http://127.0.0.1:2379 \
    --bind-address="$control_address" --advertise-address="$control_address" --secure-port=6443 \
    --service-cluster-ip-range="$service_range" \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement --allow-privileged=true \
    --anonymous-auth=false --client-ca-file="$pki/ca.crt" \
    --tls-cert-file="$pki/api-server.crt" --tls-private-key-file="$pki/api-server.key" \
    --kubelet-certificate-authority="$pki/ca.crt" \
    --kubelet-client-certificate="$pki/kubelet-client.crt" --kubelet-client-key="$pki/kubelet-client.key" \
    --kubelet-preferred-address-types=InternalIP \
    --audit-policy-file=/var/lib/audit.yaml --audit-log-path=/var/log/audit.log \
    --service-account-issuer=https://kubernetes.default.svc \
    --service-account-key-file="$pki/tokens.key" --service-account-signing-key-file="$pki/tokens.key"
}

# The host has no route into the cluster. Its loopback leads there by way of a socket in the file system.
control_start_door() {
  machine_daemon control door-inside socat UNIX-LISTEN:/var/lib/api.sock,fork,mode=600 "TCP:$control_address:6443"
  (
    cgroups_enter control
    # A socket's path must be short.
    cd "$run/control/lib" || exit
    exec setsid socat "TCP-LISTEN:$port,bind=127.0.0.1,reuseaddr,fork" UNIX-CONNECT:api.sock
  ) </dev/null >>"$run/control/log/door.log" 2>&1 &
  record "$run/control/door.pid" $!
}

control_api_ready() { kubectl --request-timeout=2s get --raw /readyz; }

control_await_api() {
  ! ended "$run/control/door.pid" || fail "port $port is taken: $(tail -n 1 "$run/control/log/door.log"). Choose another: QUORATE_KUBERNETES_PORT=16444"
  await_daemon 180 control kube-apiserver control_api_ready
}

# A node is taken for lost 20 s after its last word. By default it is 50 s, which would only make tests wait.
control_start_controllers() {
  machine_daemon control kube-controller-manager kube-controller-manager \
    --kubeconfig="$run/controller-manager.kubeconfig" --leader-elect=false --use-service-account-credentials=true \
    --service-account-private-key-file="$pki/tokens.key" --root-ca-file="$pki/ca.crt" \
    --bind-address=127.0.0.1 --node-monitor-grace-period=20s \
    --flex-volume-plugin-dir=/var/lib/kube-controller-manager/volume-plugins
  machine_daemon control kube-scheduler kube-scheduler \
    --kubeconfig="$run/scheduler.kubeconfig" --leader-elect=false --bind-address=127.0.0.1
}
