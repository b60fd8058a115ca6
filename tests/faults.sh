#!/usr/bin/env bash
# Runs the tests in tests/faults, which break what a process stands on: clocks, networks, disks, connections.
# They need root and a few Debian packages, which are installed if they are missing. They run in network and mount
# namespaces of their own, so that nothing of this machine's is changed and nothing is left behind, whatever happens.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

if [ "$(id -u)" != 0 ]; then
  echo "these tests make network namespaces and mounts: run them as root, or in a container that may do so" >&2
  exit 1
fi

missing=()
command -v ip >/dev/null || missing+=(iproute2)
command -v nft >/dev/null || missing+=(nftables)
command -v unshare >/dev/null || missing+=(util-linux)
command -v mkfs.ext4 >/dev/null || missing+=(e2fsprogs)
command -v python3 >/dev/null || missing+=(python3-minimal)
ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || missing+=(libfaketime)
if [ ${#missing[@]} -gt 0 ]; then
  echo "== installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

echo "== building"
"$cargo" build --locked --package quorate-node
"$cargo" test --locked --workspace --test faults --no-run

echo "== testing"
exec unshare --net --mount --propagation private sh -ec '
  ip link set lo up
  mkdir -p /run/netns
  mount -t tmpfs tmpfs /run/netns
  exec "$@"
' in-namespaces "$cargo" test --locked --offline --workspace --test faults -- "$@"
