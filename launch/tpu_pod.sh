#!/usr/bin/env bash
# Runs one forget-jax command on a TPU pod: asks for it, waits, installs, runs, and deletes it.
#
#   launch/tpu_pod.sh --type TYPE --zone ZONE [OPTIONS] -- COMMAND ARGUMENTS...
#   launch/tpu_pod.sh --type v5litepod-16 --zone us-west4-a --spot \
#     -- associate --workdir=gs://bucket/a ...
#
#   --type TYPE      accelerator type, such as v5litepod-16 or v6e-64
#   --zone ZONE      where
#   --project P      if not gcloud's own default
#   --name NAME      of the pod and its queued resource (default forget-jax)
#   --runtime V      TPU software version (default: the one of the type)
#   --spot           a pod that may be pre-empted; it is then asked for anew and the run resumes
#   --parts N        N pods NAME-0, NAME-1, ... at once, each of which trains and scores its share of
#                    the task groups of `associate` into the one workdir; then one that makes the
#                    matrix
#   --source PATH    what to install: a folder of forget_jax or a wheel of it (default: this folder)
#   --install WORDS  run on each machine, in ~/forget_jax, instead of the usual installation; the
#                    program must then be named by FORGET_JAX
#   --env NAME       passes a variable of this shell on, such as WANDB_API_KEY, in a file that the
#                    machines remove once they have read it; its value is shown nowhere; may be
#                    repeated
#   --create=FLAG    one more flag for gcloud's create, such as --create=--network=n; may be repeated
#   --keep           leaves the pod there at the end (it is paid for until deleted)
#   --dry-run        prints the commands of one undisturbed run and runs nothing
#
# This script must stay alive while the run lasts. Stopped, it deletes the pod; started again with the
# same arguments, the run resumes from its workdir, which must be gs://. POLL_SECONDS (default 30) is
# how often the pod is looked at.

set -uo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

type='' zone='' project='' name=forget-jax runtime='' spot='' parts='' install='' keep=''
source=$(CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
more=() options=() env='' variables=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --) shift; break ;;
    --name | --parts) option "$@"; shift 2 ;;
    --type | --zone | --project | --runtime | --source | --install)
      option "$@"; options+=("$1" "$2"); shift 2 ;;
    --spot | --keep | --dry-run) option "$1" 1; options+=("$1"); shift ;;
    --env) option "$@"; check_variable "$env"; variables+=("$env"); options+=("$1" "$2"); shift 2 ;;
    --create=*) more+=("${1#--create=}"); options+=("$1"); shift ;;
    -h | --help) usage ;;
    *) die "unknown argument '$1'; see --help" ;;
  esac
done
poll=${POLL_SECONDS:-30}
seconds POLL_SECONDS "$poll"
given --type "$type"
given --zone "$zone"
[[ $name =~ ^[a-z][-a-z0-9]{0,50}$ ]] ||
  die "--name is '$name'; it must be small letters, digits and dashes"
if [[ ! $runtime ]]; then
  case $type in
    v4-*) runtime=tpu-ubuntu2204-base ;;
    v5litepod-*) runtime=v2-alpha-tpuv5-lite ;;
    v5p-*) runtime=v2-alpha-tpuv5 ;;
    v6e-*) runtime=v2-alpha-tpuv6e ;;
    *) die "--runtime is not given, and not known for the type $type" ;;
  esac
fi
wheel=''
if [[ $source == *.whl ]]; then
  [[ -f $source ]] || die "--source $source does not exist"
  wheel=$(basename "$source") source=$(dirname "$source")
elif [[ ! -f $source/setup.py ]]; then
  die "--source $source holds no setup.py; give a checkout of forget_jax or a wheel of it"
fi
check_words "$@"
check_workdir gs:// 'a pod loses its disks when it is pre-empted' "$@"
need gcloud

if [[ $parts ]]; then
  check_parts "$parts" "$1"
  pods=() failed=0
  for ((i = 0; i < parts; i++)); do
    part=(bash "$0" --name "$name-$i" "${options[@]}" -- "$@" "--config.part=$i/$parts")
    if [[ $dry_run ]]; then "${part[@]}"; else "${part[@]}" & pods+=($!); fi
  done
  trap 'kill "${pods[@]}" 2> /dev/null; wait; exit 130' INT TERM
  for pod in "${pods[@]}"; do wait "$pod" || failed=$?; done
  if [[ $failed != 0 ]]; then
    echo 'tpu_pod.sh: a part has failed (see above); start the same command again to resume' >&2
    exit "$failed"
  fi
  exec bash "$0" --name "$name" "${options[@]}" -- "$@"
fi

where=("--zone=$zone")
[[ ! $project ]] || where+=("--project=$project")
create=(
  gcloud compute tpus queued-resources create "$name" "${where[@]}" "--node-id=$name"
  "--accelerator-type=$type" "--runtime-version=$runtime" ${spot:+--spot} "${more[@]}"
)
describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}")
describe+=('--format=value(state.state)')
delete=(gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet)
copy=(gcloud compute tpus tpu-vm scp "${where[@]}" --worker=all)
on_all=(gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=all)
on_all+=(--ssh-flag=-oServerAliveInterval=60)
if [[ ! $install ]]; then
  # the machines' own Python may be too old
  install='python3 -m pip install --quiet --user uv'
  install+=' && python3 -m uv venv --quiet --allow-existing --python 3.12 .venv'
  install+=" && python3 -m uv pip install --quiet --python .venv/bin/python $(quoted "./${wheel}[tpu,gcs]")"
  [[ ${FORGET_JAX:-} ]] || forget_jax=(.venv/bin/forget-jax)
fi
archive=forget_jax.tar.gz
unpack="mkdir -p forget_jax && tar -xzf $archive -C forget_jax && cd forget_jax && $install"
words=("${forget_jax[@]}" "$@" --distributed=auto)
start='cd forget_jax' given=()
if ((${#variables[@]})); then
  start+=' && . ../forget_jax.env && rm ../forget_jax.env'
  given=(forget_jax.env)
fi
start+=" && $(quoted "${words[@]}")"

state() {
  local said
  if said=$("${describe[@]}" 2>&1); then
    echo "$said"
  elif [[ $said == *NOT_FOUND* ]]; then
    echo ABSENT
  else
    echo UNKNOWN
    echo "$said" >&2
  fi
}

# Waits for a command so that a signal to this script ends both.
attend() {
  "$@" &
  child=$!
  wait "$child"
}

clean_up() {
  local status=$?
  [[ ! ${packed:-} ]] || rm -rf "$packed"
  [[ $keep || ! ${asked:-} ]] || "${delete[@]}"
  exit "$status"
}

# Asks for the pod, unless it is there, and waits until it can be used.
get() {
  local now
  while true; do
    now=$(state)
    case $now in
      ACTIVE) return 0 ;;
      ABSENT)
        asked=1
        "${create[@]}" || die "gcloud could not ask for $name (see above)"
        ;;
      SUSPENDED | FAILED)
        [[ $now == SUSPENDED || ! ${asked:-} ]] || die "there is no $name to be had: it is FAILED"
        echo "tpu_pod.sh: $name is $now; it is deleted and asked for anew" >&2
        "${delete[@]}" || return
        ;;
      *) attend sleep "$poll" ;;
    esac
  done
}

# pack FOLDER: the archive, and the variables, which nobody else may read.
pack() {
  local make
  run tar -czf "$1/$archive" -C "$source" --exclude=.git --exclude='.venv*' --exclude=runs \
    "${wheel:-.}" || return
  ((${#variables[@]})) || return 0
  make="(umask 077; declare -px ${variables[*]} > $(quoted "$1/forget_jax.env"))"
  if [[ $dry_run ]]; then echo "$make"; else eval "$make"; fi
}

if [[ $dry_run ]]; then
  run "${create[@]}"
  run "${describe[@]}"
  pack /tmp
  run "${copy[@]}" "/tmp/$archive" "${given[@]/#//tmp/}" "$name:"
  run "${on_all[@]}" "--command=$unpack"
  run "${on_all[@]}" "--command=$start"
  [[ $keep ]] || run "${delete[@]}"
  exit
fi

trap clean_up EXIT
trap 'kill "${child:-}" 2> /dev/null; exit 130' INT TERM
packed=$(mktemp -d)
pack "$packed" || die "cannot pack $source"
while true; do
  get || exit
  asked=1
  attend "${copy[@]}" "$packed/$archive" "${given[@]/#/$packed/}" "$name:" &&
    attend "${on_all[@]}" "--command=$unpack" &&
    attend "${on_all[@]}" "--command=$start" &&
    exit 0
  status=$?
  # a pre-emption may show in the state only some time after the connection has ended
  for ((i = 0; i < 5; i++)); do
    [[ $(state) == ACTIVE ]] || continue 2
    attend sleep "$poll"
  done
  echo 'tpu_pod.sh: the run has failed on a pod that is still there (see above)' >&2
  exit "$status"
done
