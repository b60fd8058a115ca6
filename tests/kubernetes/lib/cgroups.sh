# The cgroups of the machines: /LAB/MACHINE/system for what the machine itself runs, /LAB/MACHINE/kubepods for pods.
# Both versions of cgroups; with the first, every controller has a tree of its own. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

cgroup_trees() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    echo /sys/fs/cgroup
  else
    awk '$3 == "cgroup" { print $2 }' /proc/mounts | sort -u
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

# cgroups_freeze MACHINE yes|no: all of its processes stop where they are, or go on.
cgroups_freeze() {
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    [[ $2 == yes ]] && echo 1 >"/sys/fs/cgroup/$lab/$1/cgroup.freeze" || echo 0 >"/sys/fs/cgroup/$lab/$1/cgroup.freeze"
  else
    [[ $2 == yes ]] && echo FROZEN >"/sys/fs/cgroup/freezer/$lab/$1/freezer.state" ||
      echo THAWED >"/sys/fs/cgroup/freezer/$lab/$1/freezer.state"
  fi
}

# cgroups_remove [MACHINE]: the machine's, or the whole lab's. Their processes have ended.
cgroups_remove() {
  local tree
  for tree in $(cgroup_trees); do
    [[ ! -d $tree/$lab${1:+/$1} ]] || find "$tree/$lab${1:+/$1}" -depth -type d -exec rmdir {} +
  done
}
