#!/usr/bin/env bash
# The job that launch/slurm.sh submits: runs the words given on all tasks of the allocation, each
# part of an array its own share, and queues itself again where the time limit stopped the run.

# Words --srun=FLAG in front are flags for srun.

flags=()
while [[ ${1:-} == --srun=* ]]; do flags+=("${1#--srun=}"); shift; done
words=("$@")
if [[ ${SLURM_ARRAY_TASK_ID:-} ]]; then
  words+=("--config.part=$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT")
fi
# A process that fails says so, and the others end by themselves; srun only sees to it that they do.
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 --wait=120 "${flags[@]}" \
  "${words[@]}"
status=$?
# 130: saved and stopped because it was told to. Cancelled jobs are told to as well, but long before
# their time limit.
end=${SLURM_JOB_END_TIME:-0}
[[ $end =~ ^[0-9]{1,12}$ ]] || end=0 # what is no number must not become arithmetic
if ((status == 130 && $(date +%s) >= 10#$end - 300)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
