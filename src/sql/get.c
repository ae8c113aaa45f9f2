/*-------------------------------------------------------------------------
 *
 * get.c
 *	  Reading the live session of a token, as a row and as JSON.
 *
 * This is the hot path: an application does it at every request.  As JSON the
 * session is one value: the executor then needs no set, no tuplestore and no
 * output function for each column, which together cost more than finding the
 * row and opening its seal.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "cache/cache.h"
#include "guc.h"
#include "session/authenticate.h"
#include "session/client.h"
#include "session/lifecycle.h"
#include "session/use.h"
#include "shared.h"
#include "sql/arguments.h"
#include "sql/result.h"

/* From PostgreSQL's epoch to 1970, in microseconds. */
#define UNIX_OFFSET \
	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* The members of the JSON but data, auth and the ids, at their longest. */
#define MEMBERS_LEN			640

/* A live session that has been read, until its use has been recorded. */
typedef struct SmReading
{
	SmToken		token;
	SmClient	client;
	SmScan		scan;			/* stands on the row */
	SmContent	content;
	TimestampTz now;			/* after the row was read */
	TimestampTz last_seen_at;
	bool		due;			/* the use is to be recorded */
	bool		missed;			/* it would be, but a standby cannot */
	bool		moved;
	bool		cacheable;
} SmReading;

PG_FUNCTION_INFO_V1(sm_session_get);
PG_FUNCTION_INFO_V1(sm_session_get_json);

static bool begin_reading(FunctionCallInfo fcinfo, SmReading *reading);
static void end_reading(SmReading *reading);
static bool is_cacheable(SmScan *scan, const SmToken *token, TimestampTz now);
static void append_int(StringInfo json, const char *before, int64 value);
static void append_time(StringInfo json, const char *before, TimestampTz time);
static void append_uuid(StringInfo json, const char *before, const pg_uuid_t *value);
static void append_text(StringInfo json, const char *before, const text *value);
static void append_object(StringInfo json, const char *before, Jsonb *value);

/*
 * session_get(token, ip, user_agent, touch)
 */
Datum
sm_session_get(PG_FUNCTION_ARGS)
{
	SmReading	reading;
	SmSession  *session = &reading.scan.session;
	static const Oid types[] = {
		UUIDOID, TEXTOID, TEXTOID, JSONBOID, INT4OID, JSONBOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, BOOLOID, TEXTOID, TIMESTAMPTZOID
	};
	Datum		values[14];
	bool		nulls[14] = {false};

	if (!begin_reading(fcinfo, &reading))
		return sm_result_none(fcinfo);

	values[0] = UUIDPGetDatum(session->session_id);
	values[1] = PointerGetDatum(session->user_id);
	values[2] = PointerGetDatum(session->tenant_id);
	nulls[2] = (session->tenant_id == NULL);
	values[3] = JsonbPGetDatum(reading.content.data);
	values[4] = Int32GetDatum(session->version);
	values[5] = PointerGetDatum(reading.content.auth);
	nulls[5] = (reading.content.auth == NULL);
	values[6] = TimestampTzGetDatum(session->created_at);
	values[7] = TimestampTzGetDatum(session->authenticated_at);
	values[8] = TimestampTzGetDatum(reading.last_seen_at);
	values[9] = TimestampTzGetDatum(session->expires_at);
	values[10] = TimestampTzGetDatum(session->absolute_expires_at);
	values[11] = BoolGetDatum(reading.cacheable);
	values[12] = PointerGetDatum(session->actor_id);
	nulls[12] = (session->actor_id == NULL);
	values[13] = TimestampTzGetDatum(session->device_proved_at);
	nulls[13] = (session->device_binding_id == NULL);
	(void) sm_result_row(fcinfo, types, lengthof(types), values, nulls);

	end_reading(&reading);
	return (Datum) 0;
}

/*
 * session_get_json(token, ip, user_agent, touch)
 *
 * The members are those of session_get, and the time of the reading.  Times
 * are microseconds since 1970, which every language reads without a parser
 * for times and without loss.
 */
Datum
sm_session_get_json(PG_FUNCTION_ARGS)
{
	SmReading	reading;
	SmSession  *session = &reading.scan.session;
	StringInfoData json;

	if (!begin_reading(fcinfo, &reading))
		PG_RETURN_NULL();

	initStringInfo(&json);
	enlargeStringInfo(&json, VARHDRSZ + MEMBERS_LEN);
	json.len = VARHDRSZ;
	append_uuid(&json, "{\"session_id\": ", session->session_id);
	append_text(&json, ", \"user_id\": ", session->user_id);
	append_text(&json, ", \"tenant_id\": ", session->tenant_id);
	append_object(&json, ", \"data\": ", reading.content.data);
	append_int(&json, ", \"version\": ", session->version);
	append_object(&json, ", \"auth\": ", reading.content.auth);
	append_time(&json, ", \"created_at\": ", session->created_at);
	append_time(&json, ", \"authenticated_at\": ", session->authenticated_at);
	append_time(&json, ", \"last_seen_at\": ", reading.last_seen_at);
	append_time(&json, ", \"expires_at\": ", session->expires_at);
	append_time(&json, ", \"absolute_expires_at\": ", session->absolute_expires_at);
	if (reading.cacheable)
		append_uuid(&json, ", \"cacheable\": true, \"cache_installation\": ",
					(const pg_uuid_t *) sm_cache->installation);
	else
		appendStringInfoString(&json, ", \"cacheable\": false, \"cache_installation\": null");
	append_text(&json, ", \"actor_id\": ", session->actor_id);
	if (session->device_binding_id)
		append_time(&json, ", \"device_proved_at\": ", session->device_proved_at);
	else
		appendStringInfoString(&json, ", \"device_proved_at\": null");
	appendStringInfoString(&json, reading.token.proved ?
						   ", \"device_proved\": true" : ", \"device_proved\": false");
	append_time(&json, ", \"read_at\": ", reading.now);
	appendStringInfoString(&json, reading.missed ?
						   ", \"touch_due\": true}" : ", \"touch_due\": false}");
	SET_VARSIZE(json.data, json.len);

	end_reading(&reading);
	PG_RETURN_POINTER(json.data);
}

/*
 * Read the live session of the token that a function was called with, and
 * count what came of it.  False without one; otherwise end_reading has to be
 * called.
 */
static bool
begin_reading(FunctionCallInfo fcinfo, SmReading *reading)
{
	const SmSchema *schema;
	SmToken    *token = &reading->token;
	SmScan	   *scan = &reading->scan;
	SmSession  *session = &scan->session;
	bool		may_touch;
	SmLookup	lookup;

	reading->client = sm_arg_client(fcinfo, 1);
	if (PG_ARGISNULL(0))
		return false;
	schema = sm_called_schema(fcinfo);
	/* not before: that is what finds this database in shared memory */
	may_touch = !PG_ARGISNULL(3) && PG_GETARG_BOOL(3) && sm_can_touch();
	if (!sm_token_from_text(PG_GETARG_TEXT_PP(0), token))
	{
		sm_count(SM_GET_MALFORMED);
		return false;
	}

	lookup = sm_find_live(scan, schema, token, AccessShareLock,
						  SM_EVENT_REJECTED, &reading->client);
	if (lookup == SM_LOOKUP_LIVE &&
		!sm_client_allowed(schema, token, session, &reading->client, may_touch,
						   &reading->moved))
		lookup = SM_LOOKUP_REJECTED;
	if (lookup != SM_LOOKUP_LIVE)
	{
		sm_count((SmCounter) lookup);
		sm_scan_end(scan);
		return false;
	}
	if (!sm_session_open(schema, session, &reading->content))
	{
		sm_count(SM_GET_CORRUPT);
		sm_report_corrupt(schema, session);
	}
	sm_count(SM_GET_HIT);

	reading->now = GetCurrentTimestamp();
	reading->due = may_touch &&
		(reading->moved || sm_touch_due(session, token, reading->now));
	reading->missed = RecoveryInProgress() &&
		(sm_touch_due(session, token, reading->now) ||
		 (sm_client_binding != SM_BINDING_OFF &&
		  sm_client_moved(session->ip, reading->client.ip)));
	if (sm_database != NULL && reading->missed)
		sm_count(SM_TOUCHES_DROPPED);
	reading->last_seen_at = reading->due ? reading->now : session->last_seen_at;
	reading->cacheable = sm_cache_in_use() &&
		is_cacheable(scan, token, reading->now);
	return true;
}

/*
 * Record the use.  Nothing of the row may be looked at afterwards.
 */
static void
end_reading(SmReading *reading)
{
	if (reading->due)
		sm_touch_session(&reading->scan, &reading->token, reading->now,
						 reading->moved, &reading->client);
	sm_scan_end(&reading->scan);
}

/*
 * May a session be cached?  From there it is used unseen, by its current
 * token, from anywhere, and without a look at its actor's session; if it is
 * bound to a device, with the proof that came along here and until that expires.
 */
static bool
is_cacheable(SmScan *scan, const SmToken *token, TimestampTz now)
{
	return sm_cache_shard_agrees() &&
		!sm_touch_due(&scan->session, token, now) &&
		token->match == SM_MATCH_CURRENT &&
		scan->session.actor_session_id == NULL &&
		sm_may_go_unnoticed(&scan->session) &&
		(scan->session.device_binding_id == NULL || token->proved) &&
		sm_client_binding == SM_BINDING_OFF &&
		!RecoveryInProgress() &&
		!IsolationUsesXactSnapshot() &&
		sm_scan_row_is_settled(scan);
}

/*
 * Each of these appends "before", which is literal JSON, punctuation and the
 * member's name, and then the value.  To append the parts of "before" one by
 * one would cost more than the value itself.
 */
static void
append_int(StringInfo json, const char *before, int64 value)
{
	char		digits[MAXINT8LEN + 1];

	appendStringInfoString(json, before);
	appendBinaryStringInfo(json, digits, pg_lltoa(value, digits));
}

/*
 * What is later than such a number can say is as late as it can.
 */
static void
append_time(StringInfo json, const char *before, TimestampTz time)
{
	int64		since_1970;

	if (pg_add_s64_overflow(time, UNIX_OFFSET, &since_1970))
		since_1970 = PG_INT64_MAX;
	append_int(json, before, since_1970);
}

static void
append_uuid(StringInfo json, const char *before, const pg_uuid_t *value)
{
	static const int groups[] = {4, 2, 2, 2, 6};
	const unsigned char *in = value->data;
	char		quoted[2 * UUID_LEN + lengthof(groups) + 1];
	char	   *out = quoted;

	*out++ = '"';
	for (size_t i = 0; i < lengthof(groups); i++)
	{
		if (i > 0)
			*out++ = '-';
		out += hex_encode((const char *) in, groups[i], out);
		in += groups[i];
	}
	*out = '"';
	appendStringInfoString(json, before);
	appendBinaryStringInfo(json, quoted, sizeof(quoted));
}

static void
append_text(StringInfo json, const char *before, const text *value)
{
	appendStringInfoString(json, before);
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		escape_json(json, text_to_cstring(value));
}

static void
append_object(StringInfo json, const char *before, Jsonb *value)
{
	appendStringInfoString(json, before);
	if (value == NULL)
		appendStringInfoString(json, "null");
	else
		(void) JsonbToCString(json, &value->root, VARSIZE(value));
}
