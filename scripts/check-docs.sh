#!/bin/bash
#
# Check the documentation against the code: everything that the extension
# shows to SQL is in the reference, every name of that kind in the pages is in
# the code, the settings' defaults agree, links within the project lead
# somewhere, and each page is in the contents of the site.

set -euo pipefail

cd "$(dirname "$0")/.."

reference=docs/reference.md
script=sql/session_manager--$(sed -n "s/^default_version = '\(.*\)'/\1/p" session_manager.control).sql
router=sql/session_manager_router--$(sed -n "s/^default_version = '\(.*\)'/\1/p" session_manager_router.control).sql
pages=(*.md docs/*.md)
status=0

complain() {
  printf '%s\n' "$*"
  status=1
}

# Each line of standard input must be in the reference, in code type.
in_reference() {
  local kind=$1 name found=0

  while IFS= read -r name; do
    found=$((found + 1))
    grep -qE -- "(\`|^ *|→ +|^### .*)(session_manager\\.)?$name\\b" "$reference" ||
      complain "$reference has no $kind $name"
  done
  [ $found -gt 0 ] || complain "no $kind found in the code"
}

functions() {
  sed -nE 's/^CREATE (FUNCTION|VIEW) (session_[a-z_]+).*/\2/p' "$script" | sort -u
}

settings() {
  grep -ohE '"session_manager\.[a-z_]+"' src/guc.c | tr -d '"' | cut -d. -f2 | sort -u
}

events() {
  sed -nE 's/.*\[SM_EVENT_[A-Z_]+\] = \{"([a-z_]+)".*/\1/p' src/session/events.c
}

sqlstates() {
  cat src/*.[ch] src/*/*.[ch] | sed -nE \
    "s/.*MAKE_SQLSTATE\('(.)', *'(.)', *'(.)', *'(.)', *'(.)'\).*/\1\2\3\4\5/p" | sort -u
}

info_keys() {
  sed -nE 's/.*add_line\(&result, "([a-z_]+)".*/\1/p' src/sql/info.c
}

# Defaults of integer settings as the code has them, in the base unit.
code_defaults() {
  tr -d '\n\t' <src/guc.c | grep -oE '(define_seconds|DefineCustomIntVariable)\([^;]*;' |
    sed -nE 's/.*"session_manager\.([a-z_]+)".*&sm_[a-z_]+, *([0-9* ]+),.*/\1 \2/p' |
    while read -r name value; do printf '%s %d\n' "$name" $((value)); done
}

# The same as the reference has them; "24h" is 86400, "64kB" is 65536.
reference_default() {
  local value

  value=$(awk -F'|' -v name=" \`$1\` " '$2 == name { print $5; exit }' "$reference" |
    sed -E 's/\(.*//; s/ //g')
  case $value in
    *kB) echo $((${value%kB} * 1024)) ;;
    *h) echo $((${value%h} * 3600)) ;;
    *d) echo $((${value%d} * 86400)) ;;
    *s) echo "${value%s}" ;;
    *) echo "$value" ;;
  esac
}

in_reference function < <(functions)
# The router's page says of each function where it goes.
while IFS= read -r name; do
  grep -qE -- "(\`|^ *)$name\b" docs/router.md || complain "docs/router.md has no function $name"
done < <(sed -nE 's/^CREATE FUNCTION (session_[a-z_]+)\(.*/\1/p' "$router" | grep -vxE 'session_router_(grant|revoke)' | sort -u)
in_reference setting < <(settings)
in_reference event < <(events)
in_reference SQLSTATE < <(sqlstates)
in_reference "key of session_info" < <(info_keys)
in_reference column < <(sed -n '/^CREATE FUNCTION session_counters/,/^AS/p' "$script" |
  sed -nE 's/^\t([a-z_]+) .*/\1/p')

while read -r name value; do
  [ "$(reference_default "$name")" = "$value" ] ||
    complain "$reference: the default of $name is $value"
done < <(code_defaults)
[ "$(code_defaults | wc -l)" -ge 10 ] || complain "the defaults in src/guc.c are not found"

# Names in the pages that the code does not have.
known=$(cat "$script" "$router" src/*.c src/*/*.c clients/django/src/session_manager/{,*/}*.py |
  grep -oE '\bsession_[a-z_]+' | sort -u)
# session_manager.services is a module of the Django package, session_manager.E001 a check's id.
modules=$(cd clients/django/src/session_manager && printf '%s\n' *.py */__init__.py | sed -E 's/(\/__init__)?\.py$//')
for page in "${pages[@]}"; do
  while IFS= read -r name; do
    grep -qxF -- "$name" <<<"$known" || complain "$page: there is no function $name()"
  done < <(grep -oE '\bsession_[a-z_]+\(' "$page" | tr -d '(' | sort -u)
  while IFS= read -r name; do
    grep -qxF -- "$name" < <(settings) || complain "$page: there is no setting $name"
  done < <(grep -oE '\bsession_manager\.[a-z_]+' "$page" | cut -d. -f2 |
    grep -vxE 'control|keys|stat|so|md|auth|c' | grep -vxF -- "$modules" | sort -u)
  while IFS= read -r state; do
    grep -qxF -- "$state" < <(sqlstates) || complain "$page: there is no SQLSTATE $state"
  done < <(grep -oE '\bSM[0-9]{3}\b' "$page" | sort -u)
done

# The journeys in CONTRIBUTING.md: "FILE FUNCTION" for each function in code
# type, with the file before it, and "FILE" for each file.
journeys() {
  awk -F'[`]' '/^#/ { inside = /^#+ Four journeys$/ }
    inside && /^[0-9]+[.] / {
      file = "none"
      for (i = 2; i <= NF; i += 2)
        if ($i ~ /[.](c|h|py|ts)$/) { file = $i; print file }
        else if (sub(/[(][)]$/, "", $i)) print file, $i
    }' CONTRIBUTING.md
}

# Does FILE define FUNCTION, or CLASS.FUNCTION?
defines() {
  local name=${2##*.}

  case $1 in
    *.[ch]) grep -qE "^$name\(" "$1" ;;
    *.py) grep -qE "^ *(async )?def $name\(" "$1" &&
      { [ "$name" = "$2" ] || grep -qE "^class ${2%.*}\b" "$1"; } ;;
    *.ts) grep -qE "^ *(export )?(async )?(function|const) $name\b|^ +(async )?$name(<.*>)?(\(.*\{|: \(.*=> .*)$" "$1" ;;
  esac
}

while read -r file name; do
  path=$(ls -d "$file" "clients/django/src/session_manager/$file" "clients/react/src/$file" 2>/dev/null) || true
  if [ ! -f "$path" ]; then
    complain "CONTRIBUTING.md: no file $file in a journey"
  elif [ -n "$name" ] && ! defines "$path" "$name"; then
    complain "CONTRIBUTING.md: $file has no function $name()"
  fi
done < <(journeys)
[ "$(journeys | wc -l)" -ge 100 ] || complain "CONTRIBUTING.md: the journeys are not found"

# Names of alerts, what they mean and what to do: of the rules, and of the page's table without its code type and links.
rules() {
  sed -nE 's/^ +- alert: (.*)/\1/p; s/^ +(summary|description): "(.*)"$/\2/p' docs/session_manager_alerts.yml | paste -d '|' - - -
}
table_of_alerts() {
  # shellcheck disable=SC2016 # code type
  sed -nE 's/^\| `(Session[A-Za-z]+)` \| (.*) \| (.*) \|$/\1|\2|\3/p' docs/monitoring.md | sed -E 's/`//g; s/\[([^]]*)\]\([^)]*\)/\1/g'
}
[ "$(rules | wc -l)" -ge 20 ] || complain "docs/session_manager_alerts.yml: the rules are not found"
diff <(rules) <(table_of_alerts) || complain "docs/monitoring.md: its table of alerts differs from docs/session_manager_alerts.yml"

# Links: the file, and the heading in it as a forge makes an anchor of it.
anchors() {
  awk '/^[`][`][`]/ { code = !code } !code && sub(/^#+ +/, "")' "$1" |
    tr '[:upper:]' '[:lower:]' | sed -E 's/[^[:alnum:] _-]//g; s/ /-/g'
}

for page in "${pages[@]}"; do
  while IFS= read -r link; do
    case $link in
      *://*) continue ;;
    esac
    file=${link%%#*}
    target=$page
    [ -z "$file" ] || target=$(dirname "$page")/$file
    if [ ! -e "$target" ]; then
      complain "$page: no file $link"
    elif [[ $link == *#* ]] && ! grep -qxF -- "${link#*#}" < <(anchors "$target"); then
      complain "$page: no heading $link"
    fi
  done < <(grep -oE '\]\([^)]+\)' "$page" | sed -E 's/^\]\(//; s/\)$//' | sort -u)
done

# Each page is in the contents of the site, without which it is not built.
for page in "${pages[@]}" clients/*/README.md; do
  [ "$page" = README.md ] || grep -qF -- "\"${page%.md}\"" docs/site/conf.py ||
    complain "docs/site/conf.py: its contents have no $page"
done

exit $status
