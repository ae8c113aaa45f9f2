# The extension is built with PGXS:
#
#	make && sudo make install
#
# and has its own tasks, which install what they need on Debian and touch
# neither the system's PostgreSQL installation nor any running server:
#
#	make deps			installs what the tests need
#	make deb			Debian packages for the PostgreSQL of this release, into build/deb
#	make check-deb		builds, installs, tests, upgrades and removes them in chroots
#	make demo			a day of a web application's sessions; KEEP=1 keeps it
#	make example		a web application that uses the clients, until Ctrl-C
#	make check-quick	build, unit, regression and isolation tests, in two minutes
#	make check			every test, against private servers; TEST=… one test or suite
#	make check-long		the same under sanitizers, fuzzing for longer
#	make check-assert	the server's tests with assertions, discarded caches, valgrind
#	make check-versions	make check under other releases of PostgreSQL
#	make docs			these pages as a site with search, into build/site
#	make dist			the packages for PGXN, PyPI and npm, into build/packages
#	make indent			lays out C by pgindent and Perl by perltidy
#	make bench			measurements; STEP=get one of them, QUICK=1 a first look
#	make bench-long		growth to ten million sessions, and a day of traffic
#	make unit			unit tests that need no server
#	make reader		examples/cache_reader.c, into build/
#	make protocol		the cache protocol: test vectors and model
#	make fuzz			fuzzing, FUZZ_TIME seconds for each target

EXTENSION = session_manager session_manager_router
DATA = \
	sql/session_manager--1.0.sql \
	sql/session_manager_router--1.0.sql

MODULE_big = session_manager
OBJS = \
	src/batch.o \
	src/clock.o \
	src/commit.o \
	src/guc.o \
	src/redact.o \
	src/schema.o \
	src/secret_file.o \
	src/session_manager.o \
	src/shared.o \
	src/spi.o \
	src/version.o \
	src/cache/cache.o \
	src/cache/columns.o \
	src/cache/fence.o \
	src/cache/writer.o \
	src/keys/crypto.o \
	src/keys/envelope.o \
	src/keys/keyfile.o \
	src/keys/keyring.o \
	src/keys/token.o \
	src/maintenance/activity.o \
	src/maintenance/carry_out.o \
	src/maintenance/cascade.o \
	src/maintenance/contain.o \
	src/maintenance/flush.o \
	src/maintenance/hand_over.o \
	src/maintenance/launcher.o \
	src/maintenance/partition.o \
	src/maintenance/pass.o \
	src/maintenance/reseal.o \
	src/maintenance/restore.o \
	src/maintenance/sweep.o \
	src/maintenance/worker.o \
	src/session/assertion.o \
	src/session/authenticate.o \
	src/session/binding.o \
	src/session/bulk.o \
	src/session/client.o \
	src/session/count.o \
	src/session/device.o \
	src/session/device_key.o \
	src/session/events.o \
	src/session/finding.o \
	src/session/guess.o \
	src/session/lifecycle.o \
	src/session/locks.o \
	src/session/patch.o \
	src/session/proof.o \
	src/session/seen.o \
	src/session/store.o \
	src/session/touch.o \
	src/session/use.o \
	src/session/writer.o \
	src/sql/activity.o \
	src/sql/arguments.o \
	src/sql/assertion.o \
	src/sql/cache.o \
	src/sql/device.o \
	src/sql/events.o \
	src/sql/get.o \
	src/sql/identity.o \
	src/sql/info.o \
	src/sql/keyadmin.o \
	src/sql/maintenance.o \
	src/sql/privacy.o \
	src/sql/privileges.o \
	src/sql/result.o \
	src/sql/session.o \
	src/sql/stats.o \
	src/sql/user.o
SHLIB_LINK = -lsodium

# The cache in Redis needs hiredis; without it session_manager.redis_mode stays
# off.  TLS to Redis needs hiredis 1.0 or later.
has_header = $(shell printf '\043include <stddef.h>\n\043include <sys/time.h>\n\043include <hiredis/hiredis.h>\n\043include <hiredis/$(1)>\n' | \
	$(CC) $(CPPFLAGS) -E -x c - >/dev/null 2>&1 && echo 1 || echo 0)
USE_REDIS ?= $(call has_header,hiredis.h)
USE_REDIS_TLS ?= $(call has_header,hiredis_ssl.h)
ifeq ($(USE_REDIS),1)
OBJS += \
	src/cache/epoch.o \
	src/cache/link.o \
	src/cache/outbox.o \
	src/cache/redis.o \
	src/cache/server.o \
	src/cache/tombstone.o \
	src/cache/transaction.o \
	src/cache/worker.o
SHLIB_LINK += -lhiredis
override PG_CFLAGS += -DUSE_REDIS
ifeq ($(USE_REDIS_TLS),1)
SHLIB_LINK += -lhiredis_ssl
override PG_CFLAGS += -DHAVE_HIREDIS_SSL
endif
endif

# The version stands in the control file and nowhere else.
SM_VERSION := $(shell sed -n "s/^default_version = '\(.*\)'$$/\1/p" $(dir $(firstword $(MAKEFILE_LIST)))session_manager.control)
PG_CPPFLAGS = -DSM_VERSION='"$(SM_VERSION)"' -I$(srcdir)/src

# PG_FUNCTION_ARGS leaves a parameter unused in most functions.
override PG_CFLAGS += -Wall -Wextra -Wno-unused-parameter
ifneq (,$(findstring clang,$(CC)))
# PGXS hands over the flags of the compiler that built the server.
override PG_CFLAGS += -Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes
endif

# Nothing here is small enough to be worth inlining into expressions compiled
# just in time, so no bitcode and no clang are needed.
override with_llvm = no

# Inputs are in test/, expected output is in expected/.  Before PostgreSQL 16
# pg_regress looked for expected output below its output directory only, which
# for isolation tests is not the current one by default.
REGRESS_OPTS = --inputdir=test
REGRESS = \
	install \
	keys \
	digest \
	create \
	get \
	get_json \
	touch \
	stats \
	update \
	refresh \
	elevate \
	switch \
	idle_timeout \
	impersonate \
	invalidate \
	list \
	count \
	end_reason \
	events \
	history \
	activity \
	new_device \
	guessing \
	bind \
	assertion \
	by_id \
	limits \
	tenant \
	binding \
	cleanup \
	privacy \
	info \
	cache \
	shard \
	tamper \
	malformed \
	putback \
	privileges \
	hostile \
	readonly \
	redact \
	audit \
	device \
	owner \
	drop

ISOLATION_OPTS = --inputdir=test --outputdir=.
ISOLATION = \
	pairs \
	refresh_race \
	login_revoke_race \
	bulk_login \
	limit_race \
	snapshot \
	switch_race \
	impersonate_race \
	no_resurrection \
	cleanup_race \
	erase_race \
	activity_truncate \
	update_race \
	retire_race

TAP_TESTS = 1
PROVE_TESTS = test/t/*.pl

UNIT = test_token test_device
FUZZ = fuzz_token fuzz_envelope
FUZZ_TIME ?= 60

TASKS = bench bench-long check check-assert check-deb check-long check-quick check-versions deb demo deps dist docs example fuzz indent protocol reader unit

# The tasks come without PGXS, as they must run before it is installed.
ifeq (,$(filter $(TASKS),$(MAKECMDGOALS)))

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# The tool for shards, which is no extension's script.
shard_files = $(wildcard $(srcdir)/scripts/shard/*.sh)
shard_dir = $(DESTDIR)$(datadir)/session_manager

install: install-shard
install-shard:
	$(MKDIR_P) '$(shard_dir)/shard'
	$(INSTALL_SCRIPT) $(srcdir)/scripts/shard.sh '$(shard_dir)'
	$(INSTALL_DATA) $(shard_files) '$(shard_dir)/shard'

uninstall: uninstall-shard
uninstall-shard:
	rm -f '$(shard_dir)/shard.sh' $(patsubst %,'$(shard_dir)/shard/%',$(notdir $(shard_files)))
	-rmdir '$(shard_dir)/shard' '$(shard_dir)'

.PHONY: install-shard uninstall-shard

# PGXS does not know which object includes which header.
$(OBJS): $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h)

# Outside of the source tree, as by make -f /path/to/Makefile.
ifneq ($(srcdir),.)
# By their whole paths: VPATH would find those of the source tree.
OBJ_DIRS = $(addprefix $(CURDIR)/,$(patsubst %/,%,$(sort $(dir $(OBJS)))))
$(OBJS): | $(OBJ_DIRS)
$(OBJ_DIRS):
	mkdir -p $@
endif

else

export REGRESS ISOLATION UNIT FUZZ KEEP PG_CONFIG TEST

.PHONY: $(TASKS)

deps:
	@scripts/deps.sh

deb:
	@scripts/deb.sh

demo:
	@scripts/demo.sh

docs:
	@scripts/docs.sh

dist:
	@scripts/dist.sh

example:
	@scripts/example.sh

check:
	@scripts/check.sh

check-assert:
	@scripts/check-assert.sh

check-deb:
	@scripts/check-deb.sh

check-long:
	@scripts/check.sh --long

check-quick:
	@scripts/check.sh --quick

check-versions:
	@scripts/check-versions.sh

indent:
	@scripts/indent.sh

bench:
	@bench/all.sh

bench-long:
	@STEP=growth bench/all.sh

unit: $(UNIT:%=build/%)
	@set -e; for test in $^; do echo "$$test:"; $$test; done

reader: build/cache_reader

protocol: build/check_vectors
	@test/vectors/cache.py --check
	@test/vectors/cache.py --lines >build/vectors
	@build/check_vectors <build/vectors
	@test/model/run.sh

# The corpus is read; what is found is written to build/.
fuzz: $(FUZZ:%=build/%)
	@set -e; for target in $(FUZZ); do \
		mkdir -p build/corpus/$$target; \
		build/$$target -max_total_time=$(FUZZ_TIME) -verbosity=0 \
			-print_final_stats=1 -artifact_prefix=build/$$target- \
			build/corpus/$$target test/fuzz/corpus/$${target#fuzz_}; \
	done

SANITIZE = -g -O1 -Wall -Wextra -Werror -fsanitize=address,undefined \
	-fno-sanitize-recover=all

build/test_token: test/unit/test_token.c src/keys/token.c src/keys/token.h
build/test_device: test/unit/test_device.c src/session/device.c src/session/device.h
$(UNIT:%=build/%):
	@mkdir -p build
	$(CC) $(SANITIZE) -Isrc -o $@ $(filter %.c,$^)

PG_INCLUDE = -I$(shell $(or $(PG_CONFIG),pg_config) --includedir)
PG_LIB = -L$(shell $(or $(PG_CONFIG),pg_config) --libdir)

build/cache_reader: examples/cache_reader.c
	@mkdir -p build
	$(CC) -O2 -Wall -Wextra -Werror $(PG_INCLUDE) -o $@ $< $(PG_LIB) -lpq -lhiredis -lsodium

build/check_vectors: test/vectors/check_vectors.c examples/cache_reader.c
	@mkdir -p build
	$(CC) $(SANITIZE) $(PG_INCLUDE) -Iexamples -o $@ $< $(PG_LIB) -lpq -lhiredis -lsodium

build/fuzz_%: test/fuzz/fuzz_%.c src/keys/%.c src/keys/%.h
	@mkdir -p build
	clang $(SANITIZE) -fsanitize=fuzzer -Isrc -o $@ $(filter %.c,$^)

# "make install check"
OTHERS = $(filter-out $(TASKS),$(MAKECMDGOALS))
ifneq (,$(OTHERS))
.PHONY: $(OTHERS)
$(OTHERS):
	+@$(MAKE) $@
endif

endif
