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
#   --account A, --partition P   as sbatch takes them
#   --logs DIR          where jobs write what they say, as NAME-JOB.out (default: the current folder);
#                       it is made, and must lie on the shared file system too
#   --follow            stays, and shows what the job says until it has left the queue
#   --container IMAGE   runs in a container, through pyxis' srun --container-image; the workdir and the
#                       data must be mounted: --srun=--container-mounts=/shared:/shared
#   --env NAME          passes a variable of this shell on where the site does not pass all, such as
#                       WANDB_API_KEY; its value is shown nowhere; may be repeated
#   --srun=FLAG         one more flag for srun; may be repeated
#   --parts N           an array of N jobs, each of which trains and scores its share of the task
#                       groups of `associate` into the one workdir; a last job, once all have
#                       succeeded, makes the matrix
#   --sbatch=FLAG       one more flag for sbatch, such as --sbatch=--qos=high; may be repeated
#   --dry-run           prints the commands and submits nothing
#
# Two minutes before the time limit the run is told to save and stop, and its job puts itself back
# into the queue and resumes; so it does after a pre-emption or the loss of a node. The workdir must
# lie on a file system that all nodes share. Where containers are started by a program, FORGET_JAX
# names it: FORGET_JAX='apptainer exec --nv forget_jax.sif forget-jax'. POLL_SECONDS (default 30) is
# how often --follow asks for the queue.

set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
job=$(dirname "${BASH_SOURCE[0]}")/slurm_job.sh

nodes=1 gpus_per_node=0 cpus=8 time=4:00:00 name=forget-jax parts='' more=()
account='' partition='' logs='' follow='' container='' env='' variables=() srun=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --nodes | --gpus-per-node | --cpus | --time | --name | --parts | --account | --partition | \
      --logs | --container) option "$@"; shift 2 ;;
    --env) option "$@"; check_variable "$env"; variables+=("$env"); shift 2 ;;
    --follow) follow=1; shift ;;
    --srun=*) srun+=("$1"); shift ;;
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
[[ ! $follow || ! $parts ]] || die '--follow shows one job, and --parts makes several'
poll=${POLL_SECONDS:-30}
seconds POLL_SECONDS "$poll"
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
[[ ! $account ]] || flags+=("--account=$account")
[[ ! $partition ]] || flags+=("--partition=$partition")
if ((${#variables[@]})); then
  printf -v exported ',%s' "${variables[@]}"
  flags+=("--export=ALL$exported")
fi
[[ ! $container ]] || srun+=("--srun=--container-image=$container")
words=("$job" "${srun[@]}" "${forget_jax[@]}" "$@")
[[ $processes == 1 ]] || words+=(--distributed=auto)
file=%x-%j.out
[[ ! $parts ]] || file=%x-%A_%a.out
[[ ! $logs ]] || run mkdir -p -- "$logs"
flags+=("--output=${logs:-.}/$file" "${more[@]}")

# Shows what a job says until it has left the queue; it is there again after a time limit.
follow() {
  local said=${logs:-.}/$name-$1.out shown
  echo "job $1 writes to $said; stopped, this leaves it running" >&2
  tail --retry -n +1 -F -- "$said" 2> /dev/null &
  shown=$!
  trap 'kill "$shown"; exit 130' INT TERM
  while [[ $(squeue --noheader --jobs="$1" 2> /dev/null) ]]; do sleep "$poll"; done
  sleep 1 # for the last lines
  kill "$shown"
}

if [[ ! $parts ]]; then
  if [[ ! $follow || $dry_run ]]; then
    run sbatch "${flags[@]}" "${words[@]}"
    exit
  fi
  need squeue
  submitted=$(sbatch "${flags[@]}" "${words[@]}")
  follow "${submitted%%;*}"
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
