/*-------------------------------------------------------------------------
 *
 * privacy.c
 *	  session_export and session_erase: what is held about a user, and its
 *	  removal.
 *
 * Both exclude the user's logins and look at the latest state, whatever the
 * transaction's snapshot, so that an erasure leaves nothing behind.  They run
 * as the extension's owner, in functions with their own search_path; pgcrypto
 * is found by its extension, never by name.
 *
 * A user's events are those with the user's id and those of the user's
 * sessions: of a request that comes after a session has gone, no more is
 * known than that.
 *
 * Where the user acted as another one, that session and its events name the
 * user as well.  They are found by what session_create left with the user's own
 * session.  They are the other user's: an export leaves them out, and an
 * erasure takes the name out of them, and ends the sessions.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/datum.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

#include "commit.h"
#include "session/authenticate.h"
#include "session/lifecycle.h"
#include "session/locks.h"
#include "spi.h"
#include "sql/arguments.h"

PG_FUNCTION_INFO_V1(sm_session_export);
PG_FUNCTION_INFO_V1(sm_session_erase);

static void append_session(StringInfo json, const SmSchema *schema,
						   const SmSession *session);
static void append_text(StringInfo json, const char *key, const text *value);
static void append_time(StringInfo json, const char *key, TimestampTz value,
						bool isnull);
static int64 erase_actor(const SmSchema *schema, text *user_id,
						 int64 *events);
static char *events_json(const SmSchema *schema, text *user_id);
static char *users_events(const SmSchema *schema);
static uint64 run_on_events(const char *sql, text *user_id);
static text *encrypt(const char *json, text *public_key);
static FmgrInfo *pgcrypto_function(Oid namespace, const char *name, int nargs,
								   const Oid *types);

/*
 * session_export(user_id, pgp_public_key)
 */
Datum
sm_session_export(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	SmBoundedWaits waits;
	StringInfoData json;
	MemoryContext per_row;
	MemoryContext old;
	bool		first = true;
	text	   *result;

	schema = sm_called_schema(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));
	sm_bound_waits(&waits);
	if (!RecoveryInProgress())
		sm_lock_user(user_id);
	sm_unbound_waits(&waits);

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"user_id\": ");
	escape_json(&json, text_to_cstring(user_id));
	append_time(&json, "exported_at", GetCurrentTimestamp(), false);
	appendStringInfoString(&json, ", \"sessions\": [");
	per_row = AllocSetContextCreate(CurrentMemoryContext, "session_manager row",
									ALLOCSET_DEFAULT_SIZES);
	sm_scan_by_user(&scan, schema, user_id, AccessShareLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (!first)
			appendStringInfoString(&json, ", ");
		first = false;
		old = MemoryContextSwitchTo(per_row);
		append_session(&json, schema, &scan.session);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	sm_scan_end(&scan);
	MemoryContextDelete(per_row);
	appendStringInfo(&json, "], \"events\": %s}", events_json(schema, user_id));

	result = PG_ARGISNULL(1) ? cstring_to_text(json.data) :
		encrypt(json.data, PG_GETARG_TEXT_PP(1));
	sm_wipe(json.data, json.len);
	PG_RETURN_TEXT_P(result);
}

/*
 * session_erase(user_id)
 */
Datum
sm_session_erase(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	SmEvent		event = {.type = SM_EVENT_ERASED};
	SmBoundedWaits waits;
	JsonbParseState *detail;
	int64		events;
	int64		as_actor;
	int64		deleted = 0;

	PreventCommandIfReadOnly("session_erase()");
	schema = sm_called_schema(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));
	sm_bound_waits(&waits);
	sm_lock_user(user_id);

	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (!sm_scan_lock(&scan, LockTupleExclusive, LockWaitBlock))
			continue;
		sm_commit_durably();
		(void) sm_scan_delete(&scan, true);
		deleted++;
	}
	sm_scan_end(&scan);
	deleted += erase_actor(schema, user_id, &as_actor);
	sm_unbound_waits(&waits);

	sm_spi_connect();
	events = as_actor + (int64) run_on_events(psprintf("UPDATE %s AS e SET user_id = NULL, tenant_id = NULL,"
													   " ip = NULL, user_agent = NULL, detail = NULL WHERE %s",
													   sm_schema_qualify(schema, "session_events"),
													   users_events(schema)),
											  user_id);
	sm_spi_finish();

	/* that an erasure took place is on record, not whose */
	detail = sm_detail_begin();
	sm_detail_int(&detail, "sessions", deleted);
	sm_detail_int(&detail, "events", events);
	event.detail = sm_detail_end(&detail);
	sm_event(schema, &event);
	PG_RETURN_INT64(deleted);
}

/*
 * Delete the sessions in which a user acted as somebody else, which have ended
 * with the user's own, and take the user's name out of their events: that
 * somebody acted there stays on record.  Returns how many sessions, and sets
 * *events.
 */
static int64
erase_actor(const SmSchema *schema, text *user_id, int64 *events)
{
	char	   *event_table = sm_schema_qualify(schema, "session_events");
	char	   *acted_in = psprintf("SELECT (own.detail OPERATOR(pg_catalog.->>) 'session_id')::pg_catalog.uuid"
									" FROM %s AS own WHERE own.user_id OPERATOR(pg_catalog.=) $1"
									" AND own.event OPERATOR(pg_catalog.=) '%s'",
									event_table,
									sm_event_name(SM_EVENT_IMPERSONATED));
	MemoryContext caller = CurrentMemoryContext;
	pg_uuid_t  *ids = NULL;
	uint64		n;
	int64		deleted = 0;

	*events = 0;
	sm_spi_connect();
	n = run_on_events(acted_in, user_id);
	if (n > 0)
		ids = MemoryContextAllocZero(caller, n * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		id = SPI_getbinval(SPI_tuptable->vals[i],
									   SPI_tuptable->tupdesc, 1, &isnull);

		if (!isnull)
			ids[i] = *DatumGetUUIDP(id);
	}
	sm_spi_finish();

	for (uint64 i = 0; i < n; i++)
	{
		SmScan		scan;

		CHECK_FOR_INTERRUPTS();
		sm_scan_by_id(&scan, schema, ids[i].data, RowExclusiveLock);
		if (sm_scan_next(&scan) && scan.session.actor_id != NULL &&
			datum_image_eq(PointerGetDatum(scan.session.actor_id),
						   PointerGetDatum(user_id), false, -1) &&
			sm_scan_lock(&scan, LockTupleExclusive, LockWaitBlock))
		{
			(void) sm_scan_delete(&scan, true);
			deleted++;
		}
		sm_scan_end(&scan);
	}

	/* not before: somebody may have been writing to one of these */
	if (n > 0)
	{
		sm_spi_connect();
		*events = (int64) run_on_events(psprintf("UPDATE %s AS e"
												 " SET detail = pg_catalog.jsonb_set(e.detail, '{actor}', 'null')"
												 " WHERE e.session_id IN (%s)"
												 " AND (e.detail OPERATOR(pg_catalog.->>) 'actor') OPERATOR(pg_catalog.=) $1",
												 event_table, acted_in),
										user_id);
		sm_spi_finish();
	}
	return deleted;
}

/* One session, all of it but its verifiers. */
static void
append_session(StringInfo json, const SmSchema *schema,
			   const SmSession *session)
{
	SmContent	content;

	appendStringInfo(json, "{\"session_id\": \"%s\"",
					 DatumGetCString(DirectFunctionCall1(uuid_out,
														 UUIDPGetDatum(session->session_id))));
	append_text(json, "tenant_id", session->tenant_id);
	append_time(json, "created_at", session->created_at, false);
	append_time(json, "authenticated_at", session->authenticated_at, false);
	append_time(json, "last_seen_at", session->last_seen_at, false);
	append_time(json, "expires_at", session->expires_at, false);
	append_time(json, "absolute_expires_at", session->absolute_expires_at, false);
	append_time(json, "rotated_at", session->rotated_at, !session->rotated);
	append_time(json, "revoked_at", session->revoked_at, !session->revoked);
	append_text(json, "revoked_reason", session->revoked_reason);
	append_text(json, "ip", session->ip == NULL ? NULL :
				cstring_to_text(DatumGetCString(DirectFunctionCall1(inet_out,
																	InetPGetDatum(session->ip)))));
	append_text(json, "user_agent", session->user_agent);
	append_text(json, "actor_id", session->actor_id);
	append_time(json, "device_bound_at", session->device_bound_at,
				session->device_binding_id == NULL);
	append_time(json, "device_proved_at", session->device_proved_at,
				session->device_binding_id == NULL);
	appendStringInfo(json, ", \"version\": %d", session->version);

	/* under a revoked key nothing opens any more, by intent */
	if (sm_session_key_revoked(schema, session))
		appendStringInfoString(json, ", \"data\": null, \"auth\": null}");
	else if (!sm_session_open(schema, session, &content))
	{
		/* the rest is the user's all the same */
		sm_warn_corrupt(session);
		appendStringInfoString(json, ", \"data\": null, \"auth\": null, \"corrupt\": true}");
	}
	else
	{
		appendStringInfoString(json, ", \"data\": ");
		(void) JsonbToCString(json, &content.data->root, VARSIZE(content.data));
		appendStringInfoString(json, ", \"auth\": ");
		if (content.auth)
			(void) JsonbToCString(json, &content.auth->root, VARSIZE(content.auth));
		else
			appendStringInfoString(json, "null");
		appendStringInfoChar(json, '}');
		sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
	}
}

static void
append_text(StringInfo json, const char *key, const text *value)
{
	appendStringInfo(json, ", \"%s\": ", key);
	if (value)
		escape_json(json, text_to_cstring(value));
	else
		appendStringInfoString(json, "null");
}

static void
append_time(StringInfo json, const char *key, TimestampTz value, bool isnull)
{
	char		buf[MAXDATELEN + 1];

	if (isnull)
		appendStringInfo(json, ", \"%s\": null", key);
	else
		appendStringInfo(json, ", \"%s\": \"%s\"", key,
						 JsonEncodeDateTime(buf, TimestampTzGetDatum(value),
											TIMESTAMPTZOID, NULL));
}

/* The condition for the events e of the user $1. */
static char *
users_events(const SmSchema *schema)
{
	return psprintf("(e.user_id = $1 OR e.session_id IN"
					" (SELECT own.session_id FROM %s AS own"
					" WHERE own.user_id = $1 AND own.session_id IS NOT NULL))",
					sm_schema_qualify(schema, "session_events"));
}

/* Run SQL with the user's id for $1 under the latest snapshot. */
static uint64
run_on_events(const char *sql, text *user_id)
{
	Oid			type = TEXTOID;
	Datum		value = PointerGetDatum(user_id);

	return sm_spi_execute_with(sql, 1, &type, &value, GetLatestSnapshot());
}

/* The user's events as a JSON array. */
static char *
events_json(const SmSchema *schema, text *user_id)
{
	MemoryContext caller = CurrentMemoryContext;
	char	   *json;

	sm_spi_connect();
	(void) run_on_events(psprintf("SELECT COALESCE(pg_catalog.json_agg(e ORDER BY e.at, e.event_id), '[]')"
								  " FROM %s AS e WHERE %s",
								  sm_schema_qualify(schema, "session_events"),
								  users_events(schema)),
						 user_id);
	json = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	json = MemoryContextStrdup(caller, json);
	sm_spi_finish();
	return json;
}

/*
 * Encrypt an export to an armoured PGP public key, as armoured text.  Calls
 * pgcrypto's functions themselves: auto_explain would log the parameters of a
 * statement, and with them the export.
 */
static text *
encrypt(const char *json, text *public_key)
{
	static const Oid text_arg[] = {TEXTOID};
	static const Oid bytea_arg[] = {BYTEAOID};
	static const Oid encrypt_args[] = {TEXTOID, BYTEAOID};
	Datum		plain = CStringGetTextDatum(json);
	Oid			namespace;
	bool		isnull;
	Datum		key;
	Datum		sealed;
	Datum		armoured;

	sm_spi_connect();
	if (SPI_execute("SELECT e.extnamespace FROM pg_catalog.pg_extension AS e"
					" WHERE e.extname OPERATOR(pg_catalog.=) 'pgcrypto'",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "extension pgcrypto is not installed");
	namespace = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
											   SPI_tuptable->tupdesc, 1, &isnull));
	sm_spi_finish();

	key = FunctionCall1(pgcrypto_function(namespace, "dearmor", 1, text_arg),
						PointerGetDatum(public_key));
	sealed = FunctionCall2(pgcrypto_function(namespace, "pgp_pub_encrypt", 2, encrypt_args),
						   plain, key);
	sm_wipe(VARDATA(DatumGetPointer(plain)), VARSIZE(DatumGetPointer(plain)) - VARHDRSZ);
	armoured = FunctionCall1(pgcrypto_function(namespace, "armor", 1, bytea_arg),
							 sealed);
	return DatumGetTextP(armoured);
}

static FmgrInfo *
pgcrypto_function(Oid namespace, const char *name, int nargs, const Oid *types)
{
	List	   *qualified = list_make2(makeString(get_namespace_name(namespace)),
									   makeString(pstrdup(name)));
	FmgrInfo   *function = palloc(sizeof(FmgrInfo));

	fmgr_info(LookupFuncName(qualified, nargs, types, false), function);
	return function;
}
