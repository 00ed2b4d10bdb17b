#!/usr/bin/env bash
# Runs one forget-jax command on a GKE cluster through xpk, or a sweep in parts as several workloads.
#
#   launch/gke.sh --cluster C --image IMAGE --device-type TYPE [OPTIONS] -- COMMAND ARGUMENTS...
#   launch/gke.sh --cluster c --image gcr.io/p/forget_jax --device-type v5litepod-16 \
#     -- associate --workdir=gs://bucket/a ...
#
#   --cluster C         a cluster made by `xpk cluster create`
#   --image IMAGE       holds forget_jax with its extras `tpu` (or `gpu`) and `gcs`
#   --device-type TYPE  as xpk names it: v5litepod-16, h100-80gb-8, ...
#   --num-slices N      TPU slices of the type in one run (default 1)
#   --name NAME         of the workload (default forget-jax)
#   --restarts N        how often a workload starts again, and resumes, after a pre-emption or the
#                       loss of a machine (default 20); a mistake in the arguments is not retried
#   --parts N           N workloads NAME-0, NAME-1, ..., each of which trains and scores its share of
#                       the task groups of `associate` into the one workdir; then one that makes the
#                       matrix
#   --xpk FLAG          one more flag for xpk workload create, such as --xpk=--priority=low or
#                       --xpk=--num-nodes=2; may be repeated
#   --project P, --zone Z   as gcloud takes them
#   --dry-run           prints the commands and runs nothing
#
# Pods lose their disks with their machines, so the workdir must be gs://.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

cluster='' image='' device_type='' num_slices=1 name=forget-jax restarts=20 parts=''
project='' zone='' more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --cluster | --image | --device-type | --num-slices | --name | --restarts | --parts | \
      --project | --zone) option "$@"; shift 2 ;;
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
need xpk

where=("--cluster=$cluster")
[[ ! $project ]] || where+=("--project=$project")
[[ ! $zone ]] || where+=("--zone=$zone")

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
run xpk workload list "${where[@]}" "--wait-for-job-completion=$name"
