# Volumes are folders on a node's disk, $run/NODE/lib/volumes/NAME. Nothing makes or clears them by itself: a volume whose
# claim was deleted stays as it is until it is recycled. Sourced, never run.
# shellcheck shell=bash disable=SC2034,SC2154 # lab.sh and the others set and use variables

# volume_add NODE: one more.
volume_add() {
  local node=$1 number=1
  while [[ -e $run/$node/lib/volumes/$node-$number ]]; do ((number += 1)); done
  mkdir -p "$run/$node/lib/volumes/$node-$number"
  kubectl create --filename - <<EOF
apiVersion: v1
kind: PersistentVolume
metadata: {name: $node-$number}
spec:
  storageClassName: local
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  persistentVolumeReclaimPolicy: Retain
  local: {path: /var/lib/volumes/$node-$number}
  nodeAffinity:
    required:
      nodeSelectorTerms:
      - matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [$node]}]
EOF
}

# Empties the volumes whose claims are gone, and offers them again.
volumes_recycle() {
  local name
  for name in $(kubectl get persistentvolumes \
    --output jsonpath='{range .items[?(@.status.phase=="Released")]}{.metadata.name}{"\n"}{end}'); do
    find "$run/${name%-*}/lib/volumes/$name" -mindepth 1 -delete
    kubectl patch persistentvolume "$name" --type json --patch '[{"op": "remove", "path": "/spec/claimRef"}]'
  done
}
