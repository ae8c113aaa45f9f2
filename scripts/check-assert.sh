#!/bin/bash
#
# Run the suites that need a server on a PostgreSQL that checks itself, and end
# with the line "N passed, N failed".  PostgreSQL is built from Debian's source
# package with --enable-cassert, once, and kept in build/assert.
#
# What follows the regression, isolation and TAP tests on that server are the
# regression tests once more, each on a server of its own: with every cache of
# the catalogue discarded at every chance (debug_discard_caches), with parallel
# plans wherever they are allowed, and under valgrind.  The first and the last make
# each call take a hundred times as long: tests that go through thousands of
# changes of the tables try one in fifty there.
#
#	SOURCE		a directory with PostgreSQL's source, in place of Debian's package
#	ONLY		some of: suites discard parallel valgrind (all)

set -euo pipefail

# shellcheck source=scripts/suites.sh
. "$(dirname "$0")/suites.sh"

[ -n "${REGRESS-}" ] || die "run make check-assert, which names the tests"

built=$root/build/assert
only=${ONLY:-suites discard parallel valgrind}

# Build the server into $built/server.  It tells valgrind of its memory contexts.
build_server() {
  printf 'building PostgreSQL with assertions; this takes some minutes\n'
  rm -rf "$built"
  mkdir -p "$built"
  if [ -n "${SOURCE-}" ]; then
    rm -rf "$built/source"
    cp -R "$SOURCE" "$built/source"
  else
    "$root/scripts/fetch-source.sh" "$built/source"
  fi
  # PostgreSQL makes its generated headers only where no other make called it.
  (cd "$built/source" && unset MAKELEVEL MAKEFLAGS MFLAGS &&
    CPPFLAGS=-DUSE_VALGRIND ./configure --prefix="$built/server" \
      --enable-cassert --enable-debug --enable-tap-tests --with-openssl --without-icu \
      --without-readline CFLAGS='-O1 -fno-omit-frame-pointer' &&
    make -s -j "$(nproc)" && make -s install &&
    make -s -C contrib -j "$(nproc)" && make -s -C contrib install) \
    >"$built/log" 2>&1 || { tail -n 20 "$built/log" >&2; die "building PostgreSQL failed, see build/assert/log"; }
  touch "$built/complete"
}

# In place of the server's program, one that runs it under valgrind.
under_valgrind() {
  mv "$bindir/postgres" "$bindir/postgres-bare"
  cat >"$bindir/postgres" <<END
#!/bin/bash
exec valgrind --quiet --trace-children=yes --leak-check=no --gen-suppressions=all \
  --suppressions=$built/source/src/tools/valgrind.supp --error-limit=no \
  --log-file=$work/valgrind.%p.log --time-stamp=yes $bindir/postgres-bare "\$@"
END
  chmod 755 "$bindir/postgres"
}

no_reports() {
  ! cat "$work"/valgrind.*.log | grep .
}

# The regression tests on the build of the server that stage_tree set up, under
# further lines of configuration.
again() {
  local what=$1 title=$2

  shift 2
  case " $only " in
    *" $what "*) ;;
    *) return 0 ;;
  esac
  heading "$title"
  regression_tests tree "$what" "$@"
}

"$root/scripts/setup.sh" --source
[ -e "$built/complete" ] || build_server
PG_CONFIG=$built/server/bin/pg_config
start_work

heading "build, $("$pg_config" --version) with assertions"
copy_tree tree
stage_tree tree COPT=-Werror || die "the build failed"

case " $only " in
  *" suites "*)
    server_suites tree
    test_alone tree
    ;;
esac
# Loading a library, a function or a plan fills caches that are gone again at
# the next step: an authentication takes longer than it may otherwise.  There are
# no workers here and under valgrind: their passes would fall into the middle of
# tests that take minutes.
again discard "regression tests, catalogue caches discarded at every chance" \
  "debug_discard_caches = 1" "authentication_timeout = 600s" "test.one_in = 50"
parallel=debug_parallel_query
"$pg_config" --version | grep -v ' 15' >/dev/null || parallel=force_parallel_mode
again parallel "regression tests, parallel plans wherever allowed" \
  "${preloaded[@]}" "$parallel = regress"
under_valgrind
again valgrind "regression tests under valgrind" "authentication_timeout = 600s" "test.one_in = 50"
case " $only " in
  *" valgrind "*) check "no report of valgrind" no_reports ;;
esac

finish
