/*-------------------------------------------------------------------------
 *
 * info.c
 *	  session_info: what is on in this database, what is not, and why.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "commit.h"
#include "guc.h"
#include "keys/keyring.h"
#include "maintenance/contain.h"
#include "maintenance/reseal.h"
#include "maintenance/restore.h"
#include "maintenance/sweep.h"
#include "session/store.h"
#include "shared.h"
#include "spi.h"
#include "sql/arguments.h"
#include "sql/info.h"
#include "sql/result.h"
#include "version.h"

PG_FUNCTION_INFO_V1(sm_session_info);
PG_FUNCTION_INFO_V1(sm_require_library);

static bool preloaded = false;

static char *waits_for_place(void);
static const char *workers_state(void);
static const char *last_pass(void);
static const char *resealing(const SmSchema *schema);
static const char *next_sweep(const SmSchema *schema);
static const char *clock_state(void);
static const char *errors(SmStep step);
static const char *cache_state(void);
static const char *cache_server(void);
static const char *cache_epoch(void);
static const char *cache_shard(void);
static const char *cache_outbox(const SmSchema *schema);
static const char *cache_memory(void);
static const char *cache_warnings(void);
static bool cache_read(SmCache *cache);
static void add_line(SmResult *result, const char *key, const char *value);

/*
 * Record how the library is being loaded.  Called once, from _PG_init.
 */
void
sm_info_init(void)
{
	preloaded = process_shared_preload_libraries_in_progress;
}

/*
 * session_info()
 */
Datum
sm_session_info(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	static const Oid types[] = {TEXTOID, TEXTOID};
	SmResult	result = sm_result_begin(fcinfo, types, lengthof(types));
	const SmKey *ring;
	int			n = sm_key_list(schema, &ring);
	int			missing = 0;
	const char *active = NULL;

	sm_spi_connect();

	add_line(&result, "version",
			 sm_spi_text("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'session_manager'"));
	add_line(&result, "library_version", SM_VERSION);
	add_line(&result, "schema", get_namespace_name(schema->namespace));
	add_line(&result, "preloaded", preloaded ? "yes" :
			 "no: session_manager is not in shared_preload_libraries");
	add_line(&result, "log_redaction", !sm_redact_tokens ?
			 "off: session_manager.redact_tokens is off" :
			 preloaded ? "on" :
			 "on only where the library has been loaded, because it is not preloaded");
	add_line(&result, "key_file", sm_key_file_problem() ? sm_key_file_problem() : "loaded");
	for (int i = 0; i < n; i++)
	{
		if (ring[i].state == SM_KEY_ACTIVE)
			active = psprintf(ring[i].material == SM_MATERIAL_PRESENT ? "%d" :
							  ring[i].material == SM_MATERIAL_WRONG ?
							  "%d: the key file has another key under this id" :
							  "%d: not in the key file", ring[i].id);
		if (ring[i].state != SM_KEY_RETIRED && ring[i].state != SM_KEY_REVOKED &&
			ring[i].material != SM_MATERIAL_PRESENT)
			missing++;
	}
	add_line(&result, "active_key", active ? active : "none: session_create fails");
	add_line(&result, "keys_unavailable", psprintf("%d", missing));
	add_line(&result, "shard", sm_shard_buckets == NULL ? "all buckets" : sm_shard);
	add_line(&result, "workers", workers_state());
	add_line(&result, "last_pass", last_pass());
	add_line(&result, "clock", clock_state());
	add_line(&result, "revoke_commit", sm_commit_state());
	add_line(&result, "resealing", resealing(schema));
	for (int step = 0; step < SM_N_STEPS; step++)
		add_line(&result, psprintf("errors_%s", sm_step_name(step)), errors(step));
	add_line(&result, "cache", cache_state());
	add_line(&result, "cache_server", cache_server());
	add_line(&result, "cache_epoch", cache_epoch());
	add_line(&result, "cache_shard", cache_shard());
	add_line(&result, "cache_outbox", cache_outbox(schema));
	add_line(&result, "cache_memory", cache_memory());
	add_line(&result, "cache_warnings", cache_warnings());
	add_line(&result, "event_partitions",
			 sm_spi_text(psprintf("SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits WHERE inhparent = %u",
								  schema->events)));
	add_line(&result, "next_sweep", next_sweep(schema));

	sm_spi_finish();
	return (Datum) 0;
}

/*
 * session_require_library(version)
 *
 * An upgrade script declares it, calls it and drops it, before all else: an
 * error unless the library that is loaded has that version, or a later one.
 */
Datum
sm_require_library(PG_FUNCTION_ARGS)
{
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (sm_version_compare(SM_VERSION, version) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the extension cannot be updated to version %s while version %s of the library of session_manager is loaded",
						version, SM_VERSION),
				 errhint("Install the library of that version, and restart the server, or connect again if the library is not preloaded; then repeat ALTER EXTENSION.")));
	PG_RETURN_VOID();
}

/* Why a pass that is due does not run, or NULL. */
static char *
waits_for_place(void)
{
	int64		since;

	LWLockAcquire(sm_shared->lock, LW_SHARED);
	since = sm_database->place_wanted_at;
	LWLockRelease(sm_shared->lock);
	if (since == 0)
		return NULL;
	return psprintf("on: a pass has waited for a free background worker for %d s; raise max_worker_processes",
					(int) ((sm_clock() - since) / USECS_PER_SEC));
}

static const char *
workers_state(void)
{
	const char *no_place;

	if (sm_shared == NULL)
		return "off: the library is not preloaded; schedule session_cleanup()";
	if (sm_database == NULL)
		return psprintf("off: the server has more than %d databases; list those that have the extension in session_manager.databases, and restart",
						SM_MAX_DATABASES);
	if (RecoveryInProgress())
		return "off: the server is a standby";
	if (sm_shared->launcher == NULL)
		return "off: the launcher is not running";
	/* asked once: the pass may find a place meanwhile */
	no_place = waits_for_place();
	switch (sm_database->state)
	{
		case SM_DB_UNKNOWN:
			return no_place ? no_place : "on: the first pass has not run yet";
		case SM_DB_WITHOUT:
			return "off: the last worker did not find the extension";
		case SM_DB_NOT_CHOSEN:
			return "off: this database is a template or not in session_manager.databases";
		case SM_DB_OLDER_VERSION:
			return "off: the extension is older than the library; run ALTER EXTENSION session_manager UPDATE";
		case SM_DB_NEWER_VERSION:
			return "off: the extension is newer than the library; install the library of its version and restart";
		case SM_DB_SERVED:
			if (no_place)
				return no_place;
			if (sm_restore_state(sm_database)->waits_for[0] != '\0')
				return psprintf("on: %s", sm_restore_state(sm_database)->waits_for);
			return sm_database->worker_pid != 0 ?
				psprintf("on: pid %d is at work", sm_database->worker_pid) : "on";
	}
	elog(ERROR, "unrecognized state of a database: %d", (int) sm_database->state);
}

static const char *
last_pass(void)
{
	if (sm_database == NULL || sm_database->last_pass_at == 0)
		return "none yet";
	return psprintf(sm_database->unfinished ?
					"%s: %lld deleted, %lld queued again in %lld ms, more to do; next %s" :
					"%s: %lld deleted, %lld queued again in %lld ms; next %s",
					pstrdup(timestamptz_to_str(sm_database->last_pass_at)),
					(long long) sm_database->swept,
					(long long) sm_database->requeued,
					(long long) sm_database->pass_us / 1000,
					pstrdup(timestamptz_to_str(GetCurrentTimestamp() + sm_database->next_pass - sm_clock())));
}

static const char *
resealing(const SmSchema *schema)
{
	char	   *pending = sm_spi_text(psprintf("SELECT key_id FROM %s WHERE state = 'active' AND resealed_at IS NULL",
											   sm_schema_qualify(schema, "session_keys")));

	if (pending == NULL)
		return "done";
	if (strncmp(workers_state(), "on", 2) != 0)
		return RecoveryInProgress() ? "left to the primary" :
			psprintf("pending for key %s: no worker does it; call session_reencrypt() until it returns 0",
					 pending);
	return psprintf("under way to key %s: %lld sessions so far", pending,
					(long long) sm_reseal_state(sm_database)->resealed);
}

/*
 * When the first session is due.  Those that have been deleted may still be in
 * the index by millions, while somebody holds an old snapshot: look past the
 * beginning where the sweep is, but not for long.
 */
static const char *
next_sweep(const SmSchema *schema)
{
	TimestampTz at;
	SmFirst		first = sm_scan_first_sweep_at(schema, DT_NOBEGIN, &at);

	if (first == SM_FIRST_FAR && sm_database != NULL &&
		sm_sweep_state(sm_database)->began_at != 0)
		first = sm_scan_first_sweep_at(schema, sm_sweep_state(sm_database)->from.at, &at);
	switch (first)
	{
		case SM_FIRST_FOUND:
			return pstrdup(timestamptz_to_str(at));
		case SM_FIRST_NONE:
			return "nothing to sweep";
		case SM_FIRST_FAR:
			return "unknown: behind deleted sessions that VACUUM cannot remove yet";
	}
	elog(ERROR, "unrecognized answer of a look for the first session: %d", (int) first);
}

static const char *
clock_state(void)
{
	if (sm_shared == NULL)
		return "not watched: the library is not preloaded";
	return sm_clock_in_doubt() ?
		"in doubt: it has jumped forward by more than a day; maintenance deletes nothing for some minutes" :
		"trusted";
}

/* What a step of maintenance could not do. */
static const char *
errors(SmStep step)
{
	SmFailure	failure;

	if (sm_database == NULL)
		return "not recorded: there is no shared memory for this database";
	LWLockAcquire(sm_shared->lock, LW_SHARED);
	failure = sm_failures(sm_database)[step];
	LWLockRelease(sm_shared->lock);
	if (failure.at == 0)
		return "none";
	return psprintf(UINT64_FORMAT ", the last at %s: %s",
					pg_atomic_read_u64(&sm_database->counters[SM_FINDINGS_FAILED + step]),
					timestamptz_to_str(failure.at), failure.error);
}

static const char *
cache_state(void)
{
	static const char *const names[] = {
		[SM_REDIS_OFF] = "off",
		[SM_REDIS_ASYNC] = "async",
		[SM_REDIS_STRICT] = "strict"
	};
	uint32		mode;

	if (sm_database == NULL && sm_redis_mode != SM_REDIS_OFF)
		return "off: session_manager.redis_mode has no effect unless the library is preloaded";
	if (sm_database == NULL || RecoveryInProgress())
		return sm_redis_mode == SM_REDIS_OFF ? "off" :
			"off: the server is a standby";
	mode = pg_atomic_read_u32(&sm_cache->mode);
	if (*(volatile bool *) &sm_cache->no_place)
		return mode == SM_REDIS_OFF ?
			"off: no background worker is free for it; raise max_worker_processes" :
			psprintf("%s: being disabled", names[mode]);
	if (mode == SM_REDIS_OFF && sm_redis_mode != SM_REDIS_OFF)
		return psprintf("off: no worker serves this database (workers are %s)", workers_state());
	if (mode != SM_REDIS_OFF && sm_redis_mode == SM_REDIS_OFF)
		return psprintf("%s: being disabled", names[mode]);
	return names[mode];
}

static const char *
cache_server(void)
{
	SmCache		cache;
	const char *since;

	if (!cache_read(&cache))
		return "none";
	since = pstrdup(timestamptz_to_str(cache.linked_at));
	switch (cache.link)
	{
		case SM_LINK_NONE:
			return "not connected: no worker is running";
		case SM_LINK_DOWN:
			return psprintf("not connected since %s: %s", since, cache.problem);
		case SM_LINK_WAITING:
			return psprintf("connected since %s to %s; waiting for the end of the last epoch",
							since, cache.server);
		case SM_LINK_UP:
			return psprintf("connected since %s to %s", since, cache.server);
	}
	elog(ERROR, "unrecognized state of a connection: %d", (int) cache.link);
}

static const char *
cache_epoch(void)
{
	SmCache		cache;
	int64		left;

	if (!cache_read(&cache))
		return "none";
	if (cache.epoch_at != 0)
		return psprintf("%.1f s old",
						(double) (GetCurrentTimestamp() - cache.epoch_at) / USECS_PER_SEC);
	left = cache.dead_at - sm_clock();
	return left <= 0 ? "none: nothing is served from the cache" :
		psprintf("none: the last one ends within %.1f s",
				 (double) left / USECS_PER_SEC);
}

/* Does the cache go by the setting "shard" as it is here? */
static const char *
cache_shard(void)
{
	SmCache		cache;

	if (!cache_read(&cache))
		return "none";
	return sm_cache_shard_agrees() &&
		!(cache.former_shard && sm_clock() <= cache.dead_at) ? "current" :
		"changing: sessions of the former shard may be served from the cache";
}

/* Shows also what is left of a time when there was a cache. */
static const char *
cache_outbox(const SmSchema *schema)
{
	return sm_spi_text(psprintf("SELECT pg_catalog.count(*) || coalesce(', the oldest of ' || pg_catalog.min(at), '')"
								" FROM %s", sm_schema_qualify(schema, "session_outbox")));
}

/*
 * What Redis has said of its memory, which others may use as well: also while
 * there is no connection, because a full Redis loses it again and again.
 */
static const char *
cache_memory(void)
{
	SmCache		cache;

	if (!cache_read(&cache))
		return "none";
	if (cache.memory_used == 0)
		return "unknown";
	return cache.memory_limit == 0 ?
		psprintf("%lld bytes used, without a limit", (long long) cache.memory_used) :
		psprintf("%lld of %lld bytes used", (long long) cache.memory_used,
				 (long long) cache.memory_limit);
}

static const char *
cache_warnings(void)
{
	SmCache		cache;
	char	   *restarts;

	if (!cache_read(&cache) || (cache.warnings[0] == '\0' && cache.restarts == 0))
		return "none";
	if (cache.restarts == 0)
		return pstrdup(cache.warnings);
	restarts = psprintf("Redis was restarted or replaced %lld times",
						(long long) cache.restarts);
	return cache.warnings[0] == '\0' ? restarts :
		psprintf("%s; %s", cache.warnings, restarts);
}

/* A copy of what is known of the cache; false if there is none. */
static bool
cache_read(SmCache *cache)
{
	if (sm_database == NULL || RecoveryInProgress() ||
		pg_atomic_read_u32(&sm_cache->mode) == SM_REDIS_OFF)
		return false;
	LWLockAcquire(sm_shared->cache_lock, LW_SHARED);
	memcpy(cache, sm_cache, sizeof(SmCache));
	LWLockRelease(sm_shared->cache_lock);
	return true;
}

static void
add_line(SmResult *result, const char *key, const char *value)
{
	Datum		values[2];
	bool		nulls[2] = {false};

	values[0] = CStringGetTextDatum(key);
	values[1] = CStringGetTextDatum(value);
	tuplestore_putvalues(result->store, result->desc, values, nulls);
}
