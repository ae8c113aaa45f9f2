/*-------------------------------------------------------------------------
 *
 * privacy.c
 *	  session_export and session_erase: what is held about a user, and its
 *	  removal.
 *
 * Both exclude the user's logins, so that an export is of one moment and an
 * erasure leaves nothing behind.  They run as the extension's owner, in
 * functions with their own search_path; pgcrypto is found by its extension,
 * never by name.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "arguments.h"
#include "authenticate.h"
#include "session.h"

PG_FUNCTION_INFO_V1(sm_session_export);
PG_FUNCTION_INFO_V1(sm_session_erase);

static void append_session(StringInfo json, const SmSchema *schema,
						   const SmSession *session);
static void append_text(StringInfo json, const char *key, const text *value);
static void append_time(StringInfo json, const char *key, TimestampTz value,
						bool isnull);
static char *events_json(const SmSchema *schema, text *user_id);
static text *encrypt(const char *json, text *public_key);

/*
 * session_export(user_id, pgp_public_key)
 */
Datum
sm_session_export(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	StringInfoData json;
	bool		first = true;
	text	   *result;

	schema = sm_schema_of(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));
	if (!RecoveryInProgress())
		sm_lock_user(user_id, ExclusiveLock);

	initStringInfo(&json);
	appendStringInfoString(&json, "{\"user_id\": ");
	escape_json(&json, text_to_cstring(user_id));
	append_time(&json, "exported_at", GetCurrentTimestamp(), false);
	appendStringInfoString(&json, ", \"sessions\": [");
	sm_scan_by_user(&scan, schema, user_id, AccessShareLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (!first)
			appendStringInfoString(&json, ", ");
		first = false;
		append_session(&json, schema, &scan.session);
	}
	sm_scan_end(&scan);
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
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {PointerGetDatum(user_id)};
	SmEvent		event = {.type = SM_EVENT_ERASED};
	JsonbParseState *detail;
	int64		events;
	int64		deleted = 0;

	PreventCommandIfReadOnly("session_erase()");
	schema = sm_schema_of(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));
	sm_lock_user(user_id, ExclusiveLock);

	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (!sm_scan_lock(&scan, LockTupleExclusive, LockWaitBlock))
			continue;
		ForceSyncCommit();
		(void) sm_scan_delete(&scan, true);
		deleted++;
	}
	sm_scan_end(&scan);

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf("UPDATE %s SET user_id = NULL, tenant_id = NULL,"
									   " ip = NULL, user_agent = NULL, detail = NULL"
									   " WHERE user_id = $1",
									   sm_schema_qualify(schema, "session_events")),
							  1, types, args, NULL, false, 0) != SPI_OK_UPDATE)
		elog(ERROR, "could not anonymize session_events");
	events = (int64) SPI_processed;
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");

	/* that an erasure took place is on record, not whose */
	detail = sm_detail_begin();
	sm_detail_int(&detail, "sessions", deleted);
	sm_detail_int(&detail, "events", events);
	event.detail = sm_detail_end(&detail);
	sm_event(schema, &event);
	PG_RETURN_INT64(deleted);
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

/* The user's events as a JSON array. */
static char *
events_json(const SmSchema *schema, text *user_id)
{
	Oid			types[1] = {TEXTOID};
	Datum		args[1] = {PointerGetDatum(user_id)};
	MemoryContext caller = CurrentMemoryContext;
	char	   *json;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute_with_args(psprintf("SELECT COALESCE(pg_catalog.json_agg(e ORDER BY e.at, e.event_id), '[]')"
									   " FROM %s e WHERE e.user_id = $1",
									   sm_schema_qualify(schema, "session_events")),
							  1, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not read session_events");
	json = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	json = MemoryContextStrdup(caller, json);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	return json;
}

/*
 * Encrypt an export to an armoured PGP public key, as armoured text.  The
 * text goes to pgcrypto as a parameter, so that no log of statements holds it.
 */
static text *
encrypt(const char *json, text *public_key)
{
	Oid			types[2] = {TEXTOID, TEXTOID};
	Datum		args[2] = {CStringGetTextDatum(json), PointerGetDatum(public_key)};
	MemoryContext caller = CurrentMemoryContext;
	char	   *schema;
	bool		isnull;
	text	   *result;
	Datum		armoured;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	if (SPI_execute("SELECT pg_catalog.quote_ident(n.nspname)"
					" FROM pg_catalog.pg_extension e"
					" JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace"
					" WHERE e.extname OPERATOR(pg_catalog.=) 'pgcrypto'",
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "extension pgcrypto is not installed");
	schema = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (SPI_execute_with_args(psprintf("SELECT %s.armor(%s.pgp_pub_encrypt($1, %s.dearmor($2)))",
									   schema, schema, schema),
							  2, types, args, NULL, true, 1) != SPI_OK_SELECT)
		elog(ERROR, "could not encrypt the export");
	armoured = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	caller = MemoryContextSwitchTo(caller);
	result = (text *) PG_DETOAST_DATUM_COPY(armoured);
	MemoryContextSwitchTo(caller);
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
	return result;
}
