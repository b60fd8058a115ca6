# What the cluster must leave as it found it. Sourced, never run.
# shellcheck shell=bash disable=SC2154 # lab.sh sets variables

# Prints the host's interfaces, addresses, routes, rules, mounts, settings, cgroups, folders, and processes of the cluster.
host_state() {
  local process command
  ip -oneline link | sed 's/^/link /'
  ip -oneline address | sed 's/ valid_lft .*//; s/^/address /'
  ip route show table all | sed 's/^/route /'
  ip -6 route show table all | sed 's/ expires .*//; s/^/route /'
  ip netns list | sed 's/^/netns /'
  iptables-save | sed '/^#/d; s/\[[0-9:]*\]//; s/^/iptables /'
  sed 's/^/mount /' /proc/mounts
  sysctl net.ipv4.ip_forward vm.overcommit_memory vm.panic_on_oom kernel.panic kernel.panic_on_oops kernel.keys \
    net.netfilter.nf_conntrack_max 2>/dev/null || true # not every kernel has them all
  find /sys/fs/cgroup -type d -name '*quorate-kubernetes*' | sed 's/^/cgroup /'
  for folder in /run /var/lib /var/log /opt /usr/libexec /etc; do find "$folder" -maxdepth 1; done | sort | sed 's/^/folder /'
  # Processes come and go on any machine; of interest are those that the cluster started or that mention its folder, and
  # that are not about to end: one that was killed has no memory, so no command line either, before it is a zombie, and init
  # may take its time to take note of that.
  for process in /proc/[0-9]*; do
    command=$(tr '\0' ' ' <"$process/cmdline") || command=
    [[ -n $command ]] || continue
    if grep -q "$lab" "$process/cgroup" || grep -q "$run" <<<"$command"; then
      echo "process ${process#/proc/} $command"
    fi
  done 2>/dev/null
}
