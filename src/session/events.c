/*-------------------------------------------------------------------------
 *
 * events.c
 *	  The audit trail: writes rows of session_events.
 *
 * The partition of an event is found in the parent's partition descriptor
 * and written to directly.  Locks: ROW EXCLUSIVE on the parent, then on the
 * partition.  Attaching a partition does not conflict with the first, so the
 * choice is made again until the partition chosen is the one that is locked:
 * otherwise an event could land in the default partition after the one that
 * should hold it was attached.
 *
 * A detail never holds a token, nor anything of a session's data.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "catalog/partition.h"
#include "commands/async.h"
#include "commands/sequence.h"
#include "lib/stringinfo.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "session/events.h"
#include "session/writer.h"

struct SmEventWriter
{
	const SmSchema *schema;
	MemoryContext context;		/* in which the writer lives */
	Relation	parent;
	Relation	partition;		/* NULL before the first event */
	TimestampTz until;			/* partition is right for times in */
	TimestampTz from;			/* [from, until) */
	SmWriter   *writer;			/* to the partition */
};

static const struct
{
	const char *name;
	const char *severity;
}			event_types[] = {
	[SM_EVENT_CREATED] = {"created", "info"},
	[SM_EVENT_REFRESHED] = {"refreshed", "info"},
	[SM_EVENT_ROTATED] = {"rotated", "info"},
	[SM_EVENT_UPDATED] = {"updated", "info"},
	[SM_EVENT_ELEVATED] = {"elevated", "notice"},
	[SM_EVENT_BIND_FAILED] = {"bind_failed", "warning"},
	[SM_EVENT_CLIENT_CHANGED] = {"client_changed", "warning"},
	[SM_EVENT_INVALIDATED] = {"invalidated", "notice"},
	[SM_EVENT_EVICTED] = {"evicted", "notice"},
	[SM_EVENT_EXPIRED] = {"expired", "info"},
	[SM_EVENT_IDLE] = {"idle", "info"},
	[SM_EVENT_ACTOR_ENDED] = {"actor_ended", "info"},
	[SM_EVENT_IMPERSONATED] = {"impersonated", "notice"},
	[SM_EVENT_TOKEN_REUSED] = {"token_reused", "critical"},
	[SM_EVENT_REJECTED] = {"rejected", "warning"},
	[SM_EVENT_CORRUPT] = {"corrupt", "critical"},
	[SM_EVENT_ERASED] = {"erased", "notice"},
	[SM_EVENT_KEY_ADDED] = {"key_added", "notice"},
	[SM_EVENT_KEY_ACTIVATED] = {"key_activated", "notice"},
	[SM_EVENT_KEY_RETIRED] = {"key_retired", "notice"},
	[SM_EVENT_KEY_REVOKED] = {"key_revoked", "critical"},
	[SM_EVENT_ISSUER_TRUSTED] = {"issuer_trusted", "notice"},
	[SM_EVENT_ISSUER_DISTRUSTED] = {"issuer_distrusted", "notice"},
	[SM_EVENT_NEW_DEVICE] = {"new_device", "warning"},
	[SM_EVENT_TOKEN_GUESSING] = {"token_guessing", "warning"},
	[SM_EVENT_DEVICE_BOUND] = {"device_bound", "notice"},
	[SM_EVENT_DEVICE_PROOF_SKIPPED] = {"device_proof_skipped", "notice"},
	[SM_EVENT_DEVICE_PROOF_FAILED] = {"device_proof_failed", "critical"},
};

static void open_partition(SmEventWriter *writer, TimestampTz at);
static void close_partition(SmEventWriter *writer);
static void alert(const SmEvent *event);
static Jsonb *add_actor(Jsonb *detail, const text *actor_id);
static void detail_value(JsonbParseState **detail, const char *key,
						 JsonbValue *value);

const char *
sm_event_name(SmEventType type)
{
	return event_types[type].name;
}

/*
 * How grave a type of event is; NULL if there is none of this name.
 */
const char *
sm_event_severity(const char *name)
{
	for (int i = 0; i < (int) lengthof(event_types); i++)
		if (strcmp(name, event_types[i].name) == 0)
			return event_types[i].severity;
	return NULL;
}

/*
 * The condition that an event is critical, for SQL text.
 */
char *
sm_events_are_critical(void)
{
	StringInfoData sql;
	const char *separator = "event IN (";

	initStringInfo(&sql);
	for (int i = 0; i < (int) lengthof(event_types); i++)
	{
		if (strcmp(event_types[i].severity, "critical") != 0)
			continue;
		appendStringInfo(&sql, "%s'%s'", separator, event_types[i].name);
		separator = ", ";
	}
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/*
 * Start writing events.
 */
SmEventWriter *
sm_events_begin(const SmSchema *schema)
{
	SmEventWriter *writer = palloc0(sizeof(SmEventWriter));

	writer->schema = schema;
	writer->context = CurrentMemoryContext;
	writer->parent = table_open(schema->events, RowExclusiveLock);
	return writer;
}

/*
 * Write an event.
 */
void
sm_events_add(SmEventWriter *writer, const SmEvent *event)
{
	TimestampTz at = event->at != 0 ? event->at : GetCurrentTimestamp();
	Datum		values[Natts_session_events];
	bool		nulls[Natts_session_events];
	text	   *name = cstring_to_text(event_types[event->type].name);
	Jsonb	   *detail = event->detail;

	if (event->actor_id)
		detail = add_actor(detail, event->actor_id);
	if (event->type == SM_EVENT_DEVICE_PROOF_FAILED && sm_notify)
		alert(event);
	if (writer->partition == NULL || at < writer->from || at >= writer->until)
	{
		close_partition(writer);
		open_partition(writer, at);
	}

#define SET(column, value) \
	values[Anum_event_##column - 1] = (value); \
	nulls[Anum_event_##column - 1] = false
#define SET_OR_NULL(column, pointer) \
	values[Anum_event_##column - 1] = PointerGetDatum(pointer); \
	nulls[Anum_event_##column - 1] = ((pointer) == NULL)

	SET(event_id, Int64GetDatum(nextval_internal(writer->schema->events_seq, false)));
	SET(at, TimestampTzGetDatum(at));
	SET_OR_NULL(session_id, event->session_id);
	SET_OR_NULL(user_id, event->user_id);
	SET_OR_NULL(tenant_id, event->tenant_id);
	SET(event, PointerGetDatum(name));
	SET_OR_NULL(ip, event->client.ip);
	SET_OR_NULL(user_agent, event->client.user_agent);
	SET_OR_NULL(detail, detail);
	/* a trigger that leaves an event out is its owner's choice */
	(void) sm_writer_insert(writer->writer, values, nulls);
	pfree(name);
}

/*
 * End writing events, and make them visible to the commands that follow.
 */
void
sm_events_end(SmEventWriter *writer)
{
	close_partition(writer);
	table_close(writer->parent, NoLock);
	pfree(writer);
	CommandCounterIncrement();
}

/*
 * Make an event one of a session.
 */
void
sm_event_of(SmEvent *event, const SmSession *session)
{
	event->session_id = session->session_id;
	event->user_id = session->user_id;
	event->tenant_id = session->tenant_id;
	event->actor_id = session->actor_id;
}

/*
 * Write one event.
 */
void
sm_event(const SmSchema *schema, const SmEvent *event)
{
	SmEventWriter *writer = sm_events_begin(schema);

	sm_events_add(writer, event);
	sm_events_end(writer);
}

/*
 * Write one event of a session.
 */
void
sm_session_event(const SmSchema *schema, SmEventType type,
				 const SmSession *session, const SmClient *client,
				 Jsonb *detail)
{
	SmEvent		event = {
		.type = type,
		.client = *client,
		.detail = detail
	};

	sm_event_of(&event, session);
	sm_event(schema, &event);
}

/*
 * The partition for a time, and a span of time around it for which that
 * answer holds.
 */
Oid
sm_events_route(Relation parent, TimestampTz at,
				TimestampTz *from, TimestampTz *until)
{
	PartitionKey key = RelationGetPartitionKey(parent);
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	Datum		value = TimestampTzGetDatum(at);
	bool		is_equal;
	int			offset = -1;
	int			index = -1;

	*from = DT_NOBEGIN;
	*until = DT_NOEND;
	if (bounds != NULL && bounds->ndatums > 0)
	{
		offset = partition_range_datum_bsearch(key->partsupfunc,
											   key->partcollation,
											   bounds, 1, &value, &is_equal);
		index = bounds->indexes[offset + 1];
		if (offset >= 0 &&
			bounds->kind[offset][0] == PARTITION_RANGE_DATUM_VALUE)
			*from = DatumGetTimestampTz(bounds->datums[offset][0]);
		if (offset + 1 < bounds->ndatums &&
			bounds->kind[offset + 1][0] == PARTITION_RANGE_DATUM_VALUE)
			*until = DatumGetTimestampTz(bounds->datums[offset + 1][0]);
	}
	if (index < 0 && bounds != NULL)
		index = bounds->default_index;
	if (index < 0)
		ereport(ERROR,
				(errcode(ERRCODE_CHECK_VIOLATION),
				 errmsg("no partition of session_events accepts events of this time"),
				 errhint("Attach session_events_default again as the default partition.")));
	return desc->oids[index];
}

JsonbParseState *
sm_detail_begin(void)
{
	JsonbParseState *detail = NULL;

	pushJsonbValue(&detail, WJB_BEGIN_OBJECT, NULL);
	return detail;
}

void
sm_detail_text(JsonbParseState **detail, const char *key, const text *value)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = VARDATA_ANY(value);
	v.val.string.len = VARSIZE_ANY_EXHDR(value);
	detail_value(detail, key, &v);
}

void
sm_detail_cstring(JsonbParseState **detail, const char *key, const char *value)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, value);
	v.val.string.len = strlen(value);
	detail_value(detail, key, &v);
}

void
sm_detail_int(JsonbParseState **detail, const char *key, int64 value)
{
	JsonbValue	v;

	v.type = jbvNumeric;
	v.val.numeric = DatumGetNumeric(DirectFunctionCall1(int8_numeric,
														Int64GetDatum(value)));
	detail_value(detail, key, &v);
}

Jsonb *
sm_detail_end(JsonbParseState **detail)
{
	return JsonbValueToJsonb(pushJsonbValue(detail, WJB_END_OBJECT, NULL));
}

/*
 * Does an event's detail tell of something?
 */
bool
sm_detail_has(Jsonb *detail, const char *key)
{
	return JB_ROOT_IS_OBJECT(detail) &&
		getKeyJsonValueFromContainer(&detail->root, key, strlen(key), NULL) != NULL;
}

/* Open and lock the partition for a time. */
static void
open_partition(SmEventWriter *writer, TimestampTz at)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);
	Oid			relid = sm_events_route(writer->parent, at,
										&writer->from, &writer->until);

	for (;;)
	{
		Oid			again;

		writer->partition = table_open(relid, RowExclusiveLock);
		again = sm_events_route(writer->parent, at,
								&writer->from, &writer->until);
		if (again == relid)
			break;
		table_close(writer->partition, RowExclusiveLock);
		relid = again;
	}
	writer->writer = sm_writer_begin(writer->partition, writer->parent,
									 Natts_session_events);
	MemoryContextSwitchTo(old);
}

static void
close_partition(SmEventWriter *writer)
{
	if (writer->partition == NULL)
		return;
	sm_writer_end(writer->writer);
	table_close(writer->partition, NoLock);
	writer->partition = NULL;
}

/*
 * Notify the listeners, once this transaction commits, of what somebody should
 * look at now.
 */
static void
alert(const SmEvent *event)
{
	JsonbParseState *payload = sm_detail_begin();
	Jsonb	   *json;

	sm_detail_cstring(&payload, "event", sm_event_name(event->type));
	sm_detail_cstring(&payload, "session_id",
					  DatumGetCString(DirectFunctionCall1(uuid_out,
														  UUIDPGetDatum(event->session_id))));
	if (event->user_id)
		sm_detail_text(&payload, "user_id", event->user_id);
	json = sm_detail_end(&payload);
	Async_Notify("session_alert", JsonbToCString(NULL, &json->root, VARSIZE(json)));
}

/* A detail, which may be NULL, that says who acts as the user. */
static Jsonb *
add_actor(Jsonb *detail, const text *actor_id)
{
	JsonbParseState *building = sm_detail_begin();
	Jsonb	   *actor;

	sm_detail_text(&building, "actor", actor_id);
	actor = sm_detail_end(&building);
	if (detail == NULL)
		return actor;
	return DatumGetJsonbP(DirectFunctionCall2(jsonb_concat,
											  JsonbPGetDatum(detail),
											  JsonbPGetDatum(actor)));
}

static void
detail_value(JsonbParseState **detail, const char *key, JsonbValue *value)
{
	JsonbValue	k;

	k.type = jbvString;
	k.val.string.val = unconstify(char *, key);
	k.val.string.len = strlen(key);
	pushJsonbValue(detail, WJB_KEY, &k);
	pushJsonbValue(detail, WJB_VALUE, value);
}
