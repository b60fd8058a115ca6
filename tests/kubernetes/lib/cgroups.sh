# The cgroups of the machines: /LAB/MACHINE/system for what the machine itself runs, /LAB/MACHINE/kubepods for pods.
# Both versions of cgroups; with the first, every controller has a tree of its own, and beside them there may be one of
# the second version without controllers, which kubelet uses all the same. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

cgroup_trees() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    awk '$3 ~ "^cgroup" { print $2 }' /proc/mounts | sort -u
  fi
}

# What a new cgroup lacks to hold processes and to hand its controllers down.
cgroup_prepare() {
  local group=$1 parent
  parent=$(dirname "$group")
  mkdir -p "$group"
  if [[ -e $parent/cgroup.subtree_control ]]; then
    sed 's/[^ ]*/+&/g' "$parent/cgroup.controllers" >"$parent/cgroup.subtree_control"
  elif [[ -e $group/cpuset.cpus ]]; then
    cat "$parent/cpuset.cpus" >"$group/cpuset.cpus"
    cat "$parent/cpuset.mems" >"$group/cpuset.mems"
  fi
}

cgroups_make() {
  local tree
  for tree in $(cgroup_trees); do
    cgroup_prepare "$tree/$lab"
    cgroup_prepare "$tree/$lab/$1"
    cgroup_prepare "$tree/$lab/$1/system"
  done
}

# The calling (sub)shell moves into the machine's cgroup.
cgroups_enter() {
  local tree
  for tree in $(cgroup_trees); do
    echo "$BASHPID" >"$tree/$lab/$1/system/cgroup.procs"
  done
}

# The tree that a machine's processes are looked up and frozen in.
cgroup_main_tree() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/freezer; fi
}

# cgroups_freeze MACHINE yes|no: all of its processes stop where they are, or go on.
cgroups_freeze() {
  local group
  group=$(cgroup_main_tree)/$lab/$1
  if [[ -e $group/cgroup.freeze ]]; then
    if [[ $2 == yes ]]; then echo 1; else echo 0; fi >"$group/cgroup.freeze"
  elif [[ -e $group/freezer.state ]]; then
    if [[ $2 == yes ]]; then echo FROZEN; else echo THAWED; fi >"$group/freezer.state"
  fi
}

# The process ids of a machine, or with none named of the whole lab: all that it started, pods too.
cgroups_processes() {
  local group
  group=$(cgroup_main_tree)/$lab${1:+/$1}
  [[ ! -d $group ]] || find "$group" -name cgroup.procs -exec cat {} +
}

# Kills them; true once there are none.
cgroups_kill() {
  local processes
  mapfile -t processes < <(cgroups_processes "$1")
  ((${#processes[@]})) || return 0
  kill -KILL "${processes[@]}" 2>/dev/null || true # some may have ended meanwhile
  return 1
}

# cgroups_remove [MACHINE]: the machine's, or the whole lab's. Their processes have ended.
cgroups_remove() {
  local tree
  for tree in $(cgroup_trees); do
    [[ ! -d $tree/$lab${1:+/$1} ]] || find "$tree/$lab${1:+/$1}" -depth -type d -exec rmdir {} +
  done
}
