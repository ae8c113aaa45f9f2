# shellcheck shell=bash disable=SC2154  # root is lib.sh's
#
# Sourced by the scripts that run tests: what is checked of the sources without
# building them.  Needs what make exports.  The lint of the packages is in
# check-django.sh and check-react.sh.

# A test that make does not name would never run.
all_named() {
  local file name

  for file in "$root/test/$1"/*; do
    name=$(basename "$file")
    case " $2 " in
      *" ${name%.*} "*) ;;
      *)
        [ -d "$file" ] || { printf 'not named: %s\n' "test/$1/$name"; return 1; } ;;
    esac
  done
}

# The jobs of the workflows are those that can be run here.
workflows_name_jobs() {
  diff <("$root/scripts/ci-job.sh" --list | sort) \
    <(sed -nE 's/^ *job: *\[(.*)\] *$/\1/p' "$root"/.github/workflows/*.yml | tr ',' '\n' | tr -d ' ' | sort)
}

# grep -q ends at its first match: what writes to it may die of that, and with
# pipefail the pipeline has failed although there is a match.
no_pipe_to_quiet_grep() {
  ! grep -nE '[^|]\| *grep -[a-zA-Z]*q' "$@"
}

lint_sources() {
  local file scripts=()

  lint "Makefile names every regression test" all_named sql "${REGRESS-}"
  lint "Makefile names every isolation test" all_named specs "${ISOLATION-}"
  lint "Makefile names every unit test" all_named unit "${UNIT-}"
  lint "Makefile names every fuzz target" all_named fuzz "${FUZZ-}"
  lint "workflows name every job of ci-job.sh" workflows_name_jobs
  lint "documentation against the code" "$root/scripts/check-docs.sh"
  lint "versions, upgrade scripts and META.json, as a release needs them" "$root/scripts/check-release.sh"
  lint "check-release.sh finds what is broken" "$root/test/release/check_release.sh"
  lint "includes against the table of rooms" "$root/scripts/check-includes.sh"
  # on one machine: other versions of PostgreSQL change nothing in it
  if [ "${PACKAGES-yes}" = yes ] && [ -e "$root/build/indent/complete" ]; then
    lint "layout of C and Perl, by make indent" "$root/scripts/indent.sh" --check
  fi
  for file in "$root"/scripts/*.sh "$root"/scripts/*/*.sh "$root"/bench/*.sh "$root"/test/*/*.sh "$root"/deploy/*.sh "$root"/.ci/run \
    "$root"/debian/*PGVERSION*.p*rm "$root"/debian/tests/installcheck*; do
    [ ! -e "$file" ] || scripts+=("$file")
  done
  lint "no script pipes into grep -q" no_pipe_to_quiet_grep "${scripts[@]}"
  for file in "${scripts[@]}"; do
    lint "shellcheck ${file#"$root/"}" shellcheck -x -P "$root" "$file"
  done
}

# Build the copy of the tree NAME by the compiler that the servers do not run.
lint_clang() {
  as_owner mkdir "$work/$1/elsewhere"
  lint "no warning from $(clang --version | head -n 1), in a directory of its own" \
    build_tree "$1/elsewhere" -f "$work/$1/Makefile" CC=clang COPT=-Werror
}
