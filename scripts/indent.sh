#!/bin/bash
#
# Lay out C by PostgreSQL's pgindent and Perl by perltidy: all of it, or the
# files that are named.
#
#   scripts/indent.sh [--check] [FILE ...]
#   scripts/indent.sh --tools
#
# --check changes nothing; it names the files that would change, shows how, and
# fails where there are any.  --tools only builds what this needs.
#
# Versions of perltidy differ: without Debian 12's, Perl is left out, and a line
# says so.  pgindent and pg_bsd_indent are built once, from the source of the
# first PostgreSQL that Debian has with both (18), and kept in build/indent;
# typedefs are found in the sources.

set -euo pipefail

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

tools=$root/build/indent
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# Where a release has no source package at the moment, another one may.
fetch() {
  "$root/scripts/fetch-source.sh" "$1" forky 18 || "$root/scripts/fetch-source.sh" "$1" sid 18
}

make_tools() {
  local source=$temporary/source include

  printf 'indent: building pg_bsd_indent into build/indent, to check the layout of C\n'
  fetch "$source"
  rm -rf "$tools"
  mkdir -p "$tools"
  cp "$source"/src/tools/pgindent/{pgindent,typedefs.list} "$tools/"
  include=$("${PG_CONFIG:-pg_config}" --includedir-server)
  gcc -O2 -w -I"$include" -o "$tools/pg_bsd_indent" "$source"/src/tools/pg_bsd_indent/*.c \
    -L"$("${PG_CONFIG:-pg_config}" --pkglibdir)" -L"$("${PG_CONFIG:-pg_config}" --libdir)" -lpgcommon -lpgport
  touch "$tools/complete"
}

# The types that C files define, and those of hiredis and sodium that they use, one a line.
typedefs() {
  awk '/^typedef (struct|union|enum)/ { inside = 1 }
    /^typedef .*\(\*[A-Za-z_]+\)/ { sub(/^[^(]*\(\*/, ""); sub(/\).*/, ""); print; next }
    /^typedef .*;/ { inside = 0; sub(/;.*/, ""); sub(/.*[ *]/, ""); print; next }
    inside && /^}/ { inside = 0; sub(/^} */, ""); sub(/;.*/, ""); print }' "$@"
  printf '%s\n' redisContext redisReply redisSSLContext
}

# What pgindent makes of FILE, in $temporary/file.c.
indent_c() {
  local types

  cp "$1" "$temporary/file.c"
  case $1 in
    src/*)
      types=$temporary/typedefs-src
      # a file's variable may be called what is PostgreSQL's type elsewhere
      ! grep -qE '\bchar +\*+text\b' "$1" || types=$temporary/typedefs-no-text
      ;;
    *) types=$temporary/typedefs-other ;;
  esac
  # it leaves a backup in the current directory where it fails
  (cd "$temporary" && "$tools/pgindent" --typedefs="$types" --indent="$tools/pg_bsd_indent" file.c)
}

# A file is compared with what it would become, then replaced unless --check.
lay_out() {
  local file=$1 new=$2

  cmp -s "$root/$file" "$new" && return
  if [ $check = yes ]; then
    printf '%s is laid out otherwise:\n' "$file"
    diff -u --label "$file" --label "indented $file" "$root/$file" "$new" | head -n 40 || true
    status=1
  else
    cat "$new" >"$root/$file"
    printf '%s\n' "$file"
  fi
}

# The project's files by a pattern for their name.
in_tree() {
  find src test examples bench -name node_modules -prune -o -name "$1" -print | sort
}

"$root/scripts/setup.sh" --indent
[ -e "$tools/complete" ] || make_tools
[ "${1-}" != --tools ] || exit 0

perltidy_version=20220613
left_out=0
check=no
if [ "${1-}" = --check ]; then
  check=yes
  shift
fi
status=0
cd "$root"
mapfile -t c_files < <(in_tree '*.[ch]')
files=("$@")
[ $# -gt 0 ] || mapfile -t files < <(printf '%s\n' "${c_files[@]}"; in_tree '*.p[lm]')

typedefs "${c_files[@]}" >"$temporary/own"
sort -u "$temporary/own" "$tools/typedefs.list" >"$temporary/typedefs-src"
grep -vx text "$temporary/typedefs-src" >"$temporary/typedefs-no-text"
# Programs that do not include PostgreSQL's headers use words such as "text" for variables.
grep -vxE '[a-z]+' "$tools/typedefs.list" | sort -u "$temporary/own" - >"$temporary/typedefs-other"
perltidy=no
! perltidy -v | grep -F "v$perltidy_version" >/dev/null || perltidy=yes
for file in "${files[@]}"; do
  case $file in
    *.[ch])
      if ! indent_c "$file" >"$temporary/complaint" 2>&1; then
        printf '%s: pgindent cannot lay it out\n' "$file"
        cat "$temporary/complaint"
        status=1
        continue
      fi
      lay_out "$file" "$temporary/file.c"
      ;;
    *.p[lm])
      [ $perltidy = yes ] || { left_out=$((left_out + 1)); continue; }
      perltidy --profile="$root/scripts/perltidyrc" --standard-output "$file" >"$temporary/file.pl"
      lay_out "$file" "$temporary/file.pl"
      ;;
    *) die "cannot lay out $file" ;;
  esac
done
[ $left_out -eq 0 ] || printf 'perltidy is not %s: %s files of Perl are left out\n' $perltidy_version $left_out
exit $status
