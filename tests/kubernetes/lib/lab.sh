# The test cluster: where things are, and what every command here needs. Each command sources this, and this the rest.
# shellcheck shell=bash disable=SC2034 # what is set here is used by others
set -Eeuo pipefail
# A command that fails without a word would end everything without a word.
trap 'echo "$(basename "$0"): ${BASH_SOURCE[0]}, line $LINENO: failed: $BASH_COMMAND" >&2' ERR

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
repository=$(cd "$here/../.." && pwd)

# What is built stays; what runs is below one folder, which `down` removes.
cache=${QUORATE_KUBERNETES_CACHE:-$repository/target/kubernetes}
bin=$cache/bin
images=$cache/images
run=${QUORATE_KUBERNETES_RUN:-$repository/target/kubernetes/run}

# The one thing outside the run folder that outlives a command: the cgroup. So it is named after the folder.
lab=quorate-kubernetes-$(cksum <<<"$run" | cut -d' ' -f1)

# The port on the host's loopback that leads to the API server.
port=${QUORATE_KUBERNETES_PORT:-16443}

nodes=(node1 node2 node3)

PATH=$bin:$PATH
# What `inside` has set fits where it was set.
[[ ${KUBECONFIG:-} == "$run/inside.kubeconfig" ]] || export KUBECONFIG=$run/kubeconfig

say() { printf '== %s\n' "$*"; }

fail() {
  printf '%s: %s\n' "$(basename "$0")" "$*" >&2
  exit 1
}

# await SECONDS WHAT COMMAND…: until the command succeeds; gives up after that many seconds.
await() {
  local end=$((SECONDS + $1)) what=$2 seconds=$1
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || fail "waited $seconds s in vain: $what. The logs are in $run/*/log"
    sleep 0.2
  done
}

# since TIME: the seconds from a value of $EPOCHREALTIME until now.
since() { awk -v from="$1" -v to="$EPOCHREALTIME" 'BEGIN { printf "%.1f", to - from }'; }

need_root() { ((EUID == 0)) || fail "needs root, for namespaces, mounts and cgroups"; }

# True if the cluster is one that somebody else runs.
foreign() { [[ -n ${QUORATE_TEST_KUBECONFIG:-} ]]; }

need_own_cluster() {
  ! foreign || fail "QUORATE_TEST_KUBECONFIG names a cluster that was not started here: $1"
  [[ -e $KUBECONFIG ]] || fail "no cluster runs; start one with: make kubernetes-up"
}

# A process is recorded with the time it started, so that another one that has got its number is never taken for it.
started_at() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }
record() { echo "$2 $(started_at "$2")" >"$1"; }
recorded() {
  local pid time
  read -r pid time 2>/dev/null <"$1" && [[ $time == "$(started_at "$pid")" ]] && echo "$pid"
}
ended() { ! recorded "$1" >/dev/null; }

for part in cgroups machine certificates network control-plane node volumes host-state; do
  # shellcheck source=/dev/null
  source "$here/lib/$part.sh"
done
