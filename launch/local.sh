#!/usr/bin/env bash
# Runs one forget-jax command as several processes of this machine, each with a share of its devices.
#
#   launch/local.sh [--processes N] [--logs DIR] [--dry-run] -- COMMAND ARGUMENTS...
#   launch/local.sh --processes 4 -- finetune --workdir=runs/f --config.model.path=...
#
#   --processes N   how many (default 2). GPUs are shared out evenly; without GPUs the cores are,
#                   where taskset is installed.
#   --logs DIR      where all processes but the first write what they say (default: a new folder).
#   --dry-run       prints the commands and runs nothing.
#
# The first process speaks on this terminal. SIGINT and SIGTERM ask all of them to save and stop.
# When one dies the others are brought down; the exit status is that of the first that failed, and
# the same command resumes. FORGET_JAX names the program if it is not `forget-jax`, such as
# `python -m forget_jax`; GRACE_SECONDS (default 40) is how long the others have to end by
# themselves. Needs bash 5.1.

set -uo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

processes=2 logs=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --processes | --logs) option "$@"; shift 2 ;;
    --dry-run) dry_run=1; shift ;;
    -h | --help) usage ;;
    --) shift; break ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
whole_number --processes "$processes"
grace=${GRACE_SECONDS:-40}
seconds GRACE_SECONDS "$grace"
check_words "$@"
need "${forget_jax[0]}"

gpus=()
if [[ -v CUDA_VISIBLE_DEVICES ]]; then
  IFS=, read -ra gpus <<< "$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi > /dev/null; then
  readarray -t gpus < <(nvidia-smi --query-gpu=index --format=csv,noheader 2> /dev/null)
fi
((${#gpus[@]} % processes == 0)) ||
  die "${#gpus[@]} GPUs cannot be shared out evenly to $processes processes"
cores=()
command -v taskset > /dev/null && read -ra cores < <(
  python3 -c 'import os; print(*sorted(os.sched_getaffinity(0)))'
)
port=$(python3 -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])') ||
  die 'python3 is needed to find a free port'

# Sets `share` to what gives process $1 its share of the devices.
devices() {
  local IFS=, each
  if ((${#gpus[@]})); then
    each=$((${#gpus[@]} / processes))
    share=(env "CUDA_VISIBLE_DEVICES=${gpus[*]:$(($1 * each)):each}")
  else
    each=$((${#cores[@]} / processes))
    share=(env JAX_PLATFORMS=cpu)
    ((each == 0)) || share+=(taskset --cpu-list "${cores[*]:$(($1 * each)):each}")
  fi
}

[[ $logs || $dry_run ]] || logs=$(mktemp -d -t forget_jax.XXXXXX)
logs=${logs:-/tmp}
run mkdir -p -- "$logs" || exit

set -m # a process group for each, so that Ctrl-C reaches them once, through this script
pids=()
for ((i = 0; i < processes; i++)); do
  devices "$i"
  words=("${share[@]}" "${forget_jax[@]}" "$@" "--distributed=127.0.0.1:$port,$processes,$i")
  log=$logs/process-$i.log
  if [[ $dry_run ]]; then
    printf '%s%s &\n' "$(quoted "${words[@]}")" "$( ((i == 0)) || echo " > $(quoted "$log") 2>&1")"
  elif ((i == 0)); then
    "${words[@]}" < /dev/null &
    pids+=($!)
  else
    "${words[@]}" < /dev/null > "$log" 2>&1 &
    pids+=($!)
  fi
done
[[ $dry_run ]] && exit
((processes == 1)) || echo "processes 1 to $((processes - 1)) write to $logs" >&2

tell() {
  local pid
  for pid in "${pids[@]}"; do kill "-$1" -- "-$pid" 2> /dev/null; done
}
trap 'tell TERM' INT TERM HUP

failed=0 watch=''
while ((${#pids[@]})); do
  wait -n -p ended "${pids[@]}"
  status=$?
  [[ -v ended ]] || continue # a signal came, and was passed on
  for i in "${!pids[@]}"; do [[ ${pids[i]} != "$ended" ]] || unset "pids[i]"; done
  if ((status && !failed)); then
    failed=$status
    # the others notice within their heartbeat; those that do not are made to end
    (sleep "$grace"; tell TERM; sleep "$grace"; tell KILL) &
    watch=$!
  fi
done
[[ ! $watch ]] || kill -- "-$watch"
if ((failed)); then
  for ((i = 1; i < processes; i++)); do tail -n 1 -- "$logs/process-$i.log" >&2; done
fi
exit "$failed"
