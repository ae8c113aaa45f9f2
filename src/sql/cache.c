/*-------------------------------------------------------------------------
 *
 * cache.c
 *	  What SQL calls for the cache of sessions in Redis: its settings, and the
 *	  triggers that record what others write.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xlog.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "cache/cache.h"
#include "cache/columns.h"
#include "cache/writer.h"
#include "session/use.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_cache_record);
PG_FUNCTION_INFO_V1(sm_session_cache_settings);

/*
 * session_cache_record(): the triggers on user_sessions and session_keys
 */
Datum
sm_session_cache_record(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	const SmSchema *schema;
	Relation	rel;
	TupleDesc	desc;
	HeapTuple	before;
	HeapTuple	after = NULL;
	bool		isnull;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("session_cache_record() was not called by trigger manager")));
	if (sm_shared == NULL)
		PG_RETURN_POINTER(NULL);
	sm_shared_attach();
	if (!sm_cache_in_use())
		PG_RETURN_POINTER(NULL);

	rel = trigger->tg_relation;
	desc = RelationGetDescr(rel);
	schema = sm_schema_in(RelationGetNamespace(rel));
	before = trigger->tg_trigtuple;
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		after = trigger->tg_newtuple;
	if (!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		sm_cache_everything_changed(schema);
	else if (RelationGetRelid(rel) == schema->keys)
	{
		if (sm_cache_key_differs(desc, before, after))
			sm_cache_everything_changed(schema);
	}
	else if (RelationGetRelid(rel) == schema->sessions &&
			 sm_cache_session_differs(desc, before, after))
	{
		Datum		id = heap_getattr(before, Anum_session_id, desc, &isnull);

		/* without an id it was never cached */
		if (!isnull)
			sm_cache_session_changed(schema, DatumGetUUIDP(id));
	}
	PG_RETURN_POINTER(NULL);
}

/*
 * session_cache_settings()
 */
Datum
sm_session_cache_settings(PG_FUNCTION_ARGS)
{
	static const Oid types[] = {TEXTOID, UUIDOID, INTERVALOID};
	Datum		values[3];
	bool		nulls[3] = {false};
	const char *mode = "off";
	Interval   *max_age = palloc0(sizeof(Interval));

	(void) sm_schema_of_function(fcinfo->flinfo->fn_oid);
	if (sm_cache_in_use() && !RecoveryInProgress())
		mode = pg_atomic_read_u32(&sm_cache->mode) == SM_REDIS_STRICT ?
			"strict" : "async";
	max_age->time = sm_cached_max_age();
	values[0] = CStringGetTextDatum(mode);
	nulls[1] = (sm_database == NULL);
	if (sm_database != NULL)
		values[1] = UUIDPGetDatum((pg_uuid_t *) sm_cache->installation);
	values[2] = IntervalPGetDatum(max_age);
	return sm_result_row(fcinfo, types, lengthof(types), values, nulls);
}
