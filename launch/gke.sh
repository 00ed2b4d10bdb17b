#!/usr/bin/env bash
# Runs one forget-jax command on a GKE cluster through xpk, or a sweep in parts as several workloads.
#
#   launch/gke.sh --cluster C --image IMAGE --device-type TYPE [OPTIONS] -- COMMAND ARGUMENTS...
#   launch/gke.sh --cluster c --image gcr.io/p/forget_jax --device-type v5litepod-16 \
#     -- associate --workdir=gs://bucket/a ...
#
#   --cluster C         a cluster made by `xpk cluster create`
#   --image IMAGE       holds forget_jax with its extras `tpu` (or `gpu`) and `gcs`; launch/Dockerfile
#                       makes one
#   --device-type TYPE  as xpk names it: v5litepod-16, h100-80gb-8, ...
#   --num-slices N      TPU slices of the type in one run (default 1)
#   --name NAME         of the workload (default forget-jax)
#   --restarts N        how often a workload starts again, and resumes, after a pre-emption or the
#                       loss of a machine (default 20); a mistake in the arguments is not retried
#   --parts N           N workloads NAME-0, NAME-1, ..., each of which trains and scores its share of
#                       the task groups of `associate` into the one workdir; then one that makes the
#                       matrix
#   --env NAME          passes a variable of this shell to the containers, such as WANDB_API_KEY; its
#                       value is shown nowhere here, but who may read the cluster's workloads can read
#                       it; may be repeated
#   --follow            shows what process 0 says until the workload has ended (needs kubectl, for the
#                       cluster that xpk has made its own)
#   --xpk=FLAG          one more flag for xpk workload create, such as --xpk=--priority=low or
#                       --xpk=--num-nodes=2; may be repeated
#   --project P, --zone Z   as gcloud takes them
#   --dry-run           prints the commands and runs nothing
#
# Pods lose their disks with their machines, so the workdir must be gs://.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cluster='' image='' device_type='' num_slices=1 name=forget-jax restarts=20 parts=''
project='' zone='' more=() env='' variables=() follow='' names=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --cluster | --image | --device-type | --num-slices | --name | --restarts | --parts | \
      --project | --zone) option "$@"; shift 2 ;;
    --env) option "$@"; check_variable "$env"; variables+=("$env"); shift 2 ;;
    --follow) follow=1; shift ;;
    --xpk=*) more+=("${1#--xpk=}"); shift ;;
    --dry-run) dry_run=1; shift ;;
    -h | --help) usage ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
given --cluster "$cluster"
given --image "$image"
given --device-type "$device_type"
whole_number --num-slices "$num_slices"
whole_number --restarts "$restarts"
[[ $name =~ ^[a-z][-a-z0-9]{0,33}$ ]] ||
  die "--name is '$name'; it must be small letters, digits and dashes, at most 34"
check_words "$@"
check_workdir gs:// 'a pod loses its disks with its machine' "$@"
[[ ! $parts ]] || check_parts "$parts" "$1"
[[ ! $follow || ! $parts ]] || die '--follow shows one workload, and --parts makes several'
poll=${POLL_SECONDS:-30}
seconds POLL_SECONDS "$poll"
need xpk
[[ ! $follow ]] || need kubectl

where=("--cluster=$cluster")
[[ ! $project ]] || where+=("--project=$project")
[[ ! $zone ]] || where+=("--zone=$zone")

# xpk reads the values of names that stand alone in a file from the environment.
clean_up() {
  [[ ! $names || $dry_run ]] || rm -f "$names"
  [[ ! ${shown:-} ]] || kill -- "-$shown" 2> /dev/null || true
}
trap clean_up EXIT
if ((${#variables[@]})); then
  if [[ $dry_run ]]; then
    names=/tmp/forget_jax.names
    echo "$(quoted printf '%s\n' "${variables[@]}") > $names"
  else
    names=$(mktemp)
    printf '%s\n' "${variables[@]}" > "$names"
  fi
  more+=("--env-file=$names")
fi

# create NAME WORDS...: 1, besides xpk's own 127 to 255, is the status of a process that lost another.
create() {
  local workload=$1
  shift
  run xpk workload create "--workload=$workload" "${where[@]}" "--docker-image=$image" \
    "--device-type=$device_type" "--num-slices=$num_slices" "--max-restarts=$restarts" \
    --restart-on-exit-codes=1 --termination-grace-period-seconds=120 "${more[@]}" \
    "--command=exec $(quoted "${forget_jax[@]}" "$@" --distributed=auto)"
}

if [[ $parts ]]; then
  for ((i = 0; i < parts; i++)); do create "$name-$i" "$@" "--config.part=$i/$parts"; done
  for ((i = 0; i < parts; i++)); do
    run xpk workload list "${where[@]}" "--wait-for-job-completion=$name-$i"
  done
fi
create "$name" "$@"

# What process 0 says, from every pod that it has had.
logs=(
  kubectl logs --follow --ignore-errors --pod-running-timeout=24h
  "--selector=jobset.sigs.k8s.io/jobset-name=$name,jobset.sigs.k8s.io/job-index=0,$(
  )batch.kubernetes.io/job-completion-index=0"
)
show() {
  local since
  since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
  while true; do
    "${logs[@]}" "--since-time=$since" 2> /dev/null || true # while there is no pod
    since=$(date -u +%Y-%m-%dT%H:%M:%SZ)
    sleep "$poll"
  done
}
if [[ $follow && ! $dry_run ]]; then
  set -m # a group of its own, which ends with what it has started
  show &
  shown=$!
  set +m
fi
run xpk workload list "${where[@]}" "--wait-for-job-completion=$name"
