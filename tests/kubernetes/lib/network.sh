# The addresses: a bridge in the control machine, with a cable from each node. Sourced, never run.
#   172.30.0.1 control, 172.30.0.1N nodeN, 10.244.N.0/24 its pods, 10.96.0.0/16 services, 10.96.0.10 DNS
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # others set and use variables; inner scripts expand their own

control_address=172.30.0.1
service_range=10.96.0.0/16
pod_range=10.244.0.0/16
api_service_address=10.96.0.1
dns_address=10.96.0.10

node_number() { echo "${1#node}"; }
node_address() { echo "172.30.0.1$(node_number "$1")"; }
node_pods() { echo "10.244.$(node_number "$1").0/24"; }

network_control() {
  machine_run control bash -euc '
    ip link add fabric type bridge
    ip address add "$1/24" dev fabric
    ip link set fabric up
    sysctl -qw net.ipv4.ip_forward=1' bash "$control_address"
}

# Plugs a node's cable in. Both ends are made where they belong, so the host never sees them.
network_node() {
  local name=$1 control node other routes=()
  control=$(machine_init control)
  node=$(machine_init "$name")
  ip link add name "$name" netns "$control" type veth peer name eth0 netns "$node"
  machine_run control bash -euc '
    ip link set "$1" master fabric up
    ip route replace "$2" via "$3"' bash "$name" "$(node_pods "$name")" "$(node_address "$name")"
  for other in "${nodes[@]}"; do
    [[ $other == "$name" ]] || routes+=("$(node_pods "$other") via $(node_address "$other")")
  done
  # Traffic between pods of a node passes the rules of kube-proxy too, or answers would miss their way back.
  machine_run "$name" bash -euc '
    ip address add "$1/24" dev eth0
    ip link set eth0 up
    ip route add default via "$2"
    shift 2
    for route; do ip route add $route; done
    sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1' \
    bash "$(node_address "$name")" "$control_address" "${routes[@]}"
}

# network_link NODE up|down
network_link() { machine_run control ip link set "$1" "$2"; }
