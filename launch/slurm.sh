#!/usr/bin/env bash
# Submits one forget-jax command to SLURM: over several nodes, or a sweep in parts as a job array.
#
#   launch/slurm.sh [OPTIONS] -- COMMAND ARGUMENTS...
#   launch/slurm.sh --nodes 4 --gpus-per-node 8 --time 8:00:00 -- finetune --workdir=/shared/f ...
#   launch/slurm.sh --parts 16 --gpus-per-node 1 -- associate --workdir=/shared/a ...
#
#   --nodes N           nodes of one run (default 1)
#   --gpus-per-node G   GPUs of each, and as many processes (default 0: one process on cores)
#   --cpus C            cores of each process (default 8)
#   --time T            time limit, as sbatch takes it (default 4:00:00)
#   --name NAME         of the job (default forget-jax)
#   --parts N           an array of N jobs, each of which trains and scores its share of the task
#                       groups of `associate` into the one workdir; a last job, once all have
#                       succeeded, makes the matrix
#   --sbatch FLAG       one more flag for sbatch, such as --sbatch=--partition=long; may be repeated
#   --dry-run           prints the commands and submits nothing
#
# Two minutes before the time limit the run is told to save and stop, and its job puts itself back
# into the queue and resumes; so it does after a pre-emption or the loss of a node. The workdir must
# lie on a file system that all nodes share.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
job=$(dirname "${BASH_SOURCE[0]}")/slurm_job.sh

nodes=1 gpus_per_node=0 cpus=8 time=4:00:00 name=forget-jax parts='' more=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --nodes | --gpus-per-node | --cpus | --time | --name | --parts) option "$@"; shift 2 ;;
    --sbatch=*) more+=("${1#--sbatch=}"); shift ;;
    --dry-run) dry_run=1; shift ;;
    -h | --help) usage ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
whole_number --nodes "$nodes"
whole_number --cpus "$cpus"
[[ $gpus_per_node == 0 ]] || whole_number --gpus-per-node "$gpus_per_node"
check_words "$@"
check_workdir '' 'a job that starts again resumes there' "$@"
[[ ! $parts ]] || check_parts "$parts" "$1"
need sbatch

flags=(
  --parsable "--job-name=$name" "--nodes=$nodes" "--cpus-per-task=$cpus"
  "--time=$time" --requeue --signal=TERM@120 --open-mode=append
)
processes=$nodes
if [[ $gpus_per_node == 0 ]]; then
  flags+=(--ntasks-per-node=1)
else
  flags+=("--ntasks-per-node=$gpus_per_node" "--gres=gpu:$gpus_per_node")
  processes=$((nodes * gpus_per_node))
fi
words=("$job" "${forget_jax[@]}" "$@")
[[ $processes == 1 ]] || words+=(--distributed=auto)
flags+=("${more[@]}")

if [[ ! $parts ]]; then
  run sbatch "${flags[@]}" "${words[@]}"
  exit
fi
array=(sbatch "${flags[@]}" "--array=0-$((parts - 1))" "${words[@]}")
if [[ $dry_run ]]; then
  echo "array=\$($(quoted "${array[@]}"))"
  # shellcheck disable=SC2016 # the variable of the printed line above
  echo "$(quoted sbatch "${flags[@]}")" '--dependency=afterok:"${array%%;*}" --kill-on-invalid-dep=yes' \
    "$(quoted "${words[@]}")"
  exit
fi
submitted=$("${array[@]}")
submitted=${submitted%%;*} # where there are several clusters: ID;CLUSTER
last=$(sbatch "${flags[@]}" "--dependency=afterok:$submitted" --kill-on-invalid-dep=yes "${words[@]}")
echo "parts: job $submitted, matrix: job ${last%%;*}"
