# What the scripts of this folder share. Sourced, not run.
# shellcheck shell=bash disable=SC2034

dry_run=''
read -ra forget_jax <<< "${FORGET_JAX:-}"
[[ ${forget_jax[*]} ]] || forget_jax=(forget-jax)

die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit 2
}

# The comment at the head of the script is its help.
usage() {
  sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
  exit 0
}

# The words as one line that a shell reads back as the same words.
quoted() {
  local line
  printf -v line '%q ' "$@"
  printf '%s' "${line% }"
}

# Runs a command, or only prints it.
run() {
  if [[ $dry_run ]]; then
    quoted "$@"
    echo
  else
    "$@"
  fi
}

# option --some-name VALUE ...: sets some_name.
option() {
  local variable=${1#--}
  [[ $# -gt 1 && $2 != -- ]] || die "$1 needs a value"
  printf -v "${variable//-/_}" '%s' "$2"
}

whole_number() {
  [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || die "$1 is '$2'; it must be a whole number, 1 or more"
}

# seconds NAME VALUE: a number that sleep takes; a value of the environment is no arithmetic.
seconds() {
  [[ $2 =~ ^[0-9]{1,6}(\.[0-9]{1,6})?$ ]] || die "$1 is '$2'; it must be a number of seconds"
}

given() {
  [[ $2 ]] || die "$1 is not given; see --help"
}

need() {
  [[ $dry_run ]] || command -v "$1" > /dev/null || die "$1 is not installed here"
}

# check_variable NAME: a variable whose value is passed on, and shown nowhere.
check_variable() {
  [[ $1 =~ ^[A-Za-z_][A-Za-z0-9_]*$ ]] || die '--env takes the name of a variable, without its value'
  printenv -- "$1" > /dev/null || die "--env $1: there is no such variable here; export it"
}

# check_words WORDS...: the words after -- begin with a command of forget-jax.
check_words() {
  [[ $# -gt 0 ]] || die 'no command of forget-jax; give it last, as in: -- associate --workdir=DIR'
  [[ $1 != -* ]] || die "after -- comes a command of forget-jax, not '$1'"
}

# check_workdir PREFIX WHY WORDS...: --workdir=PREFIX... is among the words.
check_workdir() {
  local prefix=$1 why=$2 word
  shift 2
  for word in "$@"; do
    [[ $word != "--workdir=$prefix"?* ]] || return 0
  done
  die "give --workdir=${prefix}DIR after --: $why"
}

# check_parts PARTS WORDS...: only a sweep over tasks runs in parts.
check_parts() {
  whole_number --parts "$1"
  [[ $2 == associate ]] || die "--parts is for associate, not for $2"
}
