/*-------------------------------------------------------------------------
 *
 * info.c
 *	  session_info: what is on in this database, what is not, and why.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xlog.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "info.h"
#include "keyring.h"
#include "result.h"
#include "shared.h"

PG_FUNCTION_INFO_V1(sm_session_info);

static bool preloaded = false;

static const char *workers_state(void);
static const char *last_pass(void);
static const char *resealing(const SmSchema *schema);
static void put(SmResult *result, const char *key, const char *value);
static char *query_text(const char *sql);

/*
 * Note how the library is being loaded.  Called once, from _PG_init.
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
	const SmSchema *schema = sm_schema_of(fcinfo);
	SmResult	result = sm_result_begin(fcinfo);
	const SmKey *ring;
	int			n = sm_key_list(schema, &ring);
	int			missing = 0;
	const char *active = NULL;
	char	   *next_sweep;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");

	put(&result, "version",
		query_text("SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'session_manager'"));
	put(&result, "library_version", SM_VERSION);
	put(&result, "schema", get_namespace_name(schema->namespace));
	put(&result, "preloaded", preloaded ? "yes" :
		"no: session_manager is not in shared_preload_libraries");
	put(&result, "log_redaction", !sm_redact_tokens ?
		"off: session_manager.redact_tokens is off" :
		preloaded ? "on" :
		"on where the library is loaded: it is not preloaded");
	put(&result, "key_file", sm_key_file_problem() ? sm_key_file_problem() : "loaded");
	for (int i = 0; i < n; i++)
	{
		if (ring[i].state == SM_KEY_ACTIVE)
			active = psprintf("%d%s", ring[i].id,
							  ring[i].material == SM_MATERIAL_PRESENT ? "" :
							  ring[i].material == SM_MATERIAL_WRONG ?
							  ": the key file has another key under this id" :
							  ": not in the key file");
		if (ring[i].state != SM_KEY_RETIRED && ring[i].state != SM_KEY_REVOKED &&
			ring[i].material != SM_MATERIAL_PRESENT)
			missing++;
	}
	put(&result, "active_key", active ? active : "none: session_create fails");
	put(&result, "keys_unavailable", psprintf("%d", missing));
	put(&result, "shard", sm_shard_parts == 0 ? "all buckets" :
		psprintf("%d/%d", sm_shard_part, sm_shard_parts));
	put(&result, "workers", workers_state());
	put(&result, "last_pass", last_pass());
	put(&result, "resealing", resealing(schema));
	put(&result, "cache", "none in this version");
	put(&result, "event_partitions",
		query_text(psprintf("SELECT pg_catalog.count(*) FROM pg_catalog.pg_inherits WHERE inhparent = %u",
							schema->events)));
	next_sweep = query_text(psprintf("SELECT pg_catalog.min(sweep_at) FROM %s",
									 sm_schema_qualify(schema, "user_sessions")));
	put(&result, "next_sweep", next_sweep ? next_sweep : "nothing to sweep");

	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	return (Datum) 0;
}

static const char *
workers_state(void)
{
	if (sm_database == NULL)
		return "off: the library is not preloaded; schedule session_cleanup()";
	if (RecoveryInProgress())
		return "off: the server is a standby";
	if (sm_shared->launcher == NULL)
		return "off: the launcher is not running";
	switch (sm_database->state)
	{
		case SM_DB_UNKNOWN:
			return "on: the first pass is to come";
		case SM_DB_WITHOUT:
			return "off: the last worker did not find the extension";
		case SM_DB_NOT_CHOSEN:
			return "off: this database is a template or not in session_manager.databases";
		case SM_DB_OTHER_VERSION:
			return "off: the extension is at another version than the library; run ALTER EXTENSION session_manager UPDATE";
		case SM_DB_SERVED:
			return sm_database->worker_pid != 0 ?
				psprintf("on: pid %d is at work", sm_database->worker_pid) : "on";
	}
	elog(ERROR, "unrecognized state of a database: %d", (int) sm_database->state);
}

static const char *
last_pass(void)
{
	if (sm_database == NULL || sm_database->next_pass_at == 0)
		return "none yet";
	return psprintf("%s: %lld deleted, %lld queued again in %lld ms%s; next %s",
					pstrdup(timestamptz_to_str(sm_database->last_pass_at)),
					(long long) sm_database->swept,
					(long long) sm_database->requeued,
					(long long) sm_database->pass_us / 1000,
					sm_database->unfinished ? ", more to do" : "",
					pstrdup(timestamptz_to_str(sm_database->next_pass_at)));
}

static const char *
resealing(const SmSchema *schema)
{
	char	   *pending = query_text(psprintf("SELECT key_id FROM %s WHERE state = 'active' AND resealed_at IS NULL",
											  sm_schema_qualify(schema, "session_keys")));

	if (pending == NULL)
		return "done";
	if (sm_database == NULL)
		return "call session_reencrypt() until it returns 0";
	return psprintf("under way to key %s: %lld sessions so far", pending,
					(long long) sm_database->resealed);
}

static void
put(SmResult *result, const char *key, const char *value)
{
	Datum		values[2];
	bool		nulls[2] = {false};

	values[0] = CStringGetTextDatum(key);
	values[1] = CStringGetTextDatum(value);
	tuplestore_putvalues(result->store, result->desc, values, nulls);
}

/* The one value of a query, as text, or NULL. */
static char *
query_text(const char *sql)
{
	if (SPI_execute(sql, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not query the state of session_manager");
	if (SPI_processed == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}
