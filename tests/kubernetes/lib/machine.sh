# A machine of the test cluster: namespaces of its own for processes, mounts and network, held by a process 1 of its own.
# When that ends, the kernel ends everything in the machine and takes its mounts and interfaces along: nothing can be
# left behind. Its disk is $run/MACHINE/lib, seen inside as /var/lib; its logs are in $run/MACHINE/log. Sourced, never run.
# shellcheck shell=bash disable=SC2016,SC2034,SC2154 # others set and use variables; inner scripts expand their own

# machine_boot NAME
machine_boot() {
  local name=$1 outer
  mkdir -p "$run/$name/lib/tmp" "$run/$name/log"
  cgroups_make "$name"
  (
    cgroups_enter "$name"
    exec setsid unshare --net --mount --pid --fork --kill-child --mount-proc "$bin/pause"
  ) </dev/null >>"$run/$name/log/machine.log" 2>&1 &
  outer=$!
  await 10 "process 1 of $name" machine_find_init "$name" "$outer"
  # Nothing of this is seen outside: the mounts are the machine's own. /run as after a boot; as kernel settings that
  # cannot differ between machines, and that kubelet would change, files with what it wants to find.
  machine_run "$name" bash -euc '
    [[ $(readlink /proc/self/ns/mnt) != "$2" ]] || { echo "these are the mounts of the host" >&2; exit 1; }
    mount --make-rshared /
    mount -t tmpfs -o mode=755 tmpfs /run
    mkdir -p /run/lock /run/sysctl
    mount --bind "$1/log" /var/log
    mount --bind "$1/lib" /var/lib
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
      kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
      file=/run/sysctl/$(basename "${setting%=*}")
      echo "${setting#*=}" >"$file"
      mount --bind "$file" "/proc/sys/${setting%=*}"
    done
    ip link set lo up' bash "$run/$name" "$(readlink /proc/self/ns/mnt)"
}

# Process 1 has started the program that it is to be once its own /proc is mounted.
machine_find_init() {
  local init
  init=$(pgrep --parent "$2") && [[ $(readlink "/proc/$init/exe") == "$(readlink -f "$bin/pause")" ]] &&
    record "$run/$1/init.pid" "$init"
}

machine_init() { recorded "$run/$1/init.pid" || fail "$1 does not run"; }

# machine_run NAME COMMAND…: in the machine, in the foreground.
machine_run() {
  local name=$1 init
  init=$(machine_init "$name")
  shift
  nsenter --target "$init" --mount --net --pid -- env TMPDIR=/var/lib/tmp "$@"
}

# machine_daemon NAME COMPONENT COMMAND…: in the machine, in the background, with a log of its own.
machine_daemon() {
  local name=$1 component=$2 init
  init=$(machine_init "$name")
  shift 2
  (
    cgroups_enter "$name"
    exec setsid nsenter --target "$init" --mount --net --pid -- env TMPDIR=/var/lib/tmp "$@"
  ) </dev/null >>"$run/$name/log/$component.log" 2>&1 &
  record "$run/$name/$component.pid" $!
}

ready_or_ended() {
  local file=$1
  shift
  "$@" || ended "$file"
}

# await_daemon SECONDS NAME COMPONENT COMMAND…: until the command succeeds; gives up at once when the component ends.
await_daemon() {
  local seconds=$1 name=$2 component=$3
  shift 3
  await "$seconds" "$component of $name to be ready" ready_or_ended "$run/$name/$component.pid" "$@"
  ! ended "$run/$name/$component.pid" || {
    tail -n 20 "$run/$name/log/$component.log" >&2
    fail "$component of $name ended; its log is $run/$name/log/$component.log"
  }
}

# machine_off NAME…: as if the power were cut, of all at once. Their disks stay.
machine_off() {
  local name
  for name; do
    # A frozen process does not end.
    cgroups_freeze "$name" no
    cgroups_kill "$name" || true
  done
  for name; do
    await 30 "all that runs in $name to end" cgroups_kill "$name"
    cgroups_remove "$name"
    rm -f "$run/$name"/*.pid
  done
}
