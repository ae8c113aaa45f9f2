/*-------------------------------------------------------------------------
 *
 * user.c
 *	  What is done without a token to one session, or to all of a user, of a
 *	  tenant, of the database: end, patch, list, count.
 *
 * Ending all of a user's sessions excludes that user's logins, see locks.c.
 * Ending a tenant's or everybody's waits instead for the transactions that
 * were logging somebody in when it began, and blocks nobody: a login that
 * began before is seen, one that began later is later.
 * A session that takes another one's place is not later than that: where one
 * that is to end has been replaced meanwhile, its user's are looked at again.
 *
 * Each function that may meet any number of sessions works on one at a time,
 * in a memory context of its own.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "session/authenticate.h"
#include "session/locks.h"
#include "sql/arguments.h"
#include "sql/result.h"
#include "sql/session.h"

/* A NOTICE tells of progress every so many sessions. */
#define PROGRESS_STEP	100000

PG_FUNCTION_INFO_V1(sm_session_invalidate_id);
PG_FUNCTION_INFO_V1(sm_session_invalidate_all);
PG_FUNCTION_INFO_V1(sm_session_invalidate_tenant);
PG_FUNCTION_INFO_V1(sm_session_invalidate_everything);
PG_FUNCTION_INFO_V1(sm_session_update_user);
PG_FUNCTION_INFO_V1(sm_session_list);
PG_FUNCTION_INFO_V1(sm_session_active_count);

/* Sessions being ended. */
typedef struct Ending
{
	const SmSchema *schema;
	const text *tenant_id;		/* NULL for any */
	const pg_uuid_t *except;	/* or NULL */
	text	   *reason;
	SmEventWriter *events;
	MemoryContext per_row;
	List	   *again;			/* users whose sessions changed meanwhile */
	int64		ended;
} Ending;

static MemoryContext row_context(void);
static bool text_equal(const text *a, const text *b);
static bool of_tenant(const SmSession *session, const text *tenant_id);
static bool may_live(SmScan *scan);
static bool lock_active(SmScan *scan);
static int64 end_all(SmScan *scan, const text *tenant_id,
					 const pg_uuid_t *except, text *reason);
static void end_some(Ending *ending, SmScan *scan);
static int	compare_ids_descending(const void *a, const void *b);
static void list_row(SmResult *result, const SmSchema *schema,
					 const SmSession *session, bool is_current,
					 TimestampTz now);

/*
 * session_invalidate_id(session_id, user_id, reason)
 */
Datum
sm_session_invalidate_id(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *user_id = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text	   *reason = sm_arg_reason(fcinfo, 2);
	text	   *owner = NULL;

	PreventCommandIfReadOnly("session_invalidate_id()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	schema = sm_schema_of(fcinfo);
	sm_check_shard(sm_id_bucket(PG_GETARG_UUID_P(0)->data));

	sm_scan_by_id(&scan, schema, PG_GETARG_UUID_P(0)->data, RowExclusiveLock);
	if (sm_scan_next(&scan) &&
		(user_id == NULL || text_equal(user_id, scan.session.user_id)) &&
		sm_scan_lock(&scan, LockTupleNoKeyExclusive, LockWaitBlock) &&
		sm_session_life(schema, &scan.session, GetCurrentTimestamp()) == SM_LIFE_ACTIVE)
	{
		sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED, reason);
		owner = DatumGetTextPCopy(PointerGetDatum(scan.session.user_id));
	}
	sm_scan_end(&scan);
	if (owner == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(owner);
}

/*
 * session_invalidate_all(user_id, except_token, tenant_id, reason)
 *
 * A token to be spared that is not one of a live session of this user spares
 * nothing: the caller asked for the user to be signed out.
 */
Datum
sm_session_invalidate_all(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	SmToken		token;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 2);
	text	   *reason = sm_arg_reason(fcinfo, 3);
	SmBoundedWaits waits;
	pg_uuid_t	spared;
	pg_uuid_t  *except = NULL;
	int64		ended;

	PreventCommandIfReadOnly("session_invalidate_all()");
	schema = sm_schema_of(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));

	sm_bound_waits(&waits);
	sm_lock_user(user_id);
	if (!PG_ARGISNULL(1) && sm_token_from_text(PG_GETARG_TEXT_PP(1), &token))
	{
		if (sm_find_live(&scan, schema, &token, AccessShareLock, SM_EVENT_REJECTED,
							NULL, NULL) == SM_LOOKUP_LIVE)
		{
			spared = *scan.session.session_id;
			except = &spared;
		}
		sm_scan_end(&scan);
	}
	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	ended = end_all(&scan, tenant_id, except, reason);
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	PG_RETURN_INT64(ended);
}

/*
 * session_invalidate_tenant(tenant_id, reason)
 */
Datum
sm_session_invalidate_tenant(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 0);
	text	   *reason = sm_arg_reason(fcinfo, 1);
	SmBoundedWaits waits;
	int64		ended;

	PreventCommandIfReadOnly("session_invalidate_tenant()");
	if (tenant_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("tenant_id must not be null")));
	schema = sm_schema_of(fcinfo);
	sm_bound_waits(&waits);
	sm_wait_for_logins();
	sm_scan_by_tenant(&scan, schema, tenant_id, RowExclusiveLock);
	ended = end_all(&scan, tenant_id, NULL, reason);
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	PG_RETURN_INT64(ended);
}

/*
 * session_invalidate_everything(reason)
 */
Datum
sm_session_invalidate_everything(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *reason = sm_arg_reason(fcinfo, 0);
	SmBoundedWaits waits;
	int64		ended;

	PreventCommandIfReadOnly("session_invalidate_everything()");
	schema = sm_schema_of(fcinfo);
	sm_bound_waits(&waits);
	sm_wait_for_logins();
	sm_scan_all(&scan, schema, RowExclusiveLock);
	ended = end_all(&scan, NULL, NULL, reason);
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	PG_RETURN_INT64(ended);
}

/*
 * session_update_user(user_id, patch, tenant_id)
 */
Datum
sm_session_update_user(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	Jsonb	   *patch = sm_arg_object(fcinfo, 1, "patch");
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 2);
	SmBoundedWaits waits;
	MemoryContext per_row = row_context();
	MemoryContext old;
	int64		updated = 0;
	int32		version;
	Jsonb	   *data;

	PreventCommandIfReadOnly("session_update_user()");
	if (patch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("patch must not be null")));
	schema = sm_schema_of(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));

	/* a login under way would otherwise keep what the patch changes */
	sm_bound_waits(&waits);
	sm_lock_user(user_id);
	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (!of_tenant(&scan.session, tenant_id) ||
			!may_live(&scan) || !lock_active(&scan))
			continue;
		old = MemoryContextSwitchTo(per_row);
		sm_patch_session(&scan, patch, false, false, false, &version, &data);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
		updated++;
	}
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	MemoryContextDelete(per_row);
	PG_RETURN_INT64(updated);
}

/*
 * session_list(user_id, current_token, include_ended, after, max_rows)
 *
 * Session ids sort by the time of their making, so they serve as the key of
 * a page.
 */
Datum
sm_session_list(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	SmToken		token;
	SmResult	result;
	static const Oid types[] = {
		UUIDOID, TEXTOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, INETOID, TEXTOID, JSONBOID,
		TIMESTAMPTZOID, TEXTOID
	};
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	bool		include_ended = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2);
	pg_uuid_t  *after = PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3);
	int			max_rows = sm_arg_max_rows(fcinfo, 4);
	pg_uuid_t	current;
	bool		has_current = false;
	TimestampTz now = GetCurrentTimestamp();
	pg_uuid_t  *ids = NULL;
	int			n = 0;
	int			allocated = 0;
	MemoryContext per_row = row_context();
	MemoryContext old;

	schema = sm_schema_of(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(user_id));
	if (!PG_ARGISNULL(1) && sm_token_from_text(PG_GETARG_TEXT_PP(1), &token))
	{
		if (sm_find_live(&scan, schema, &token, AccessShareLock, SM_EVENT_REJECTED,
							NULL, NULL) == SM_LOOKUP_LIVE)
		{
			current = *scan.session.session_id;
			has_current = true;
		}
		sm_scan_end(&scan);
	}

	/* ids first: only those of the page are opened */
	sm_scan_by_user(&scan, schema, user_id, AccessShareLock);
	while (sm_scan_next(&scan))
	{
		pg_uuid_t  *id = scan.session.session_id;

		if (after != NULL && memcmp(id, after, UUID_LEN) >= 0)
			continue;
		if (!include_ended &&
			sm_session_life(schema, &scan.session, now) != SM_LIFE_ACTIVE)
			continue;
		if (n == allocated)
		{
			allocated = Max(16, allocated * 2);
			ids = ids ? repalloc(ids, allocated * sizeof(pg_uuid_t))
				: palloc(allocated * sizeof(pg_uuid_t));
		}
		ids[n++] = *id;
	}
	sm_scan_end(&scan);

	if (n > 0)
		qsort(ids, n, sizeof(pg_uuid_t), compare_ids_descending);
	result = sm_result_begin(fcinfo, types, lengthof(types));
	for (int i = 0; i < Min(n, max_rows); i++)
	{
		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(per_row);
		sm_scan_by_id(&scan, schema, ids[i].data, AccessShareLock);
		if (sm_scan_next(&scan))
			list_row(&result, schema, &scan.session,
					 has_current && memcmp(&ids[i], &current, UUID_LEN) == 0,
					 now);
		sm_scan_end(&scan);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
	}
	MemoryContextDelete(per_row);
	return (Datum) 0;
}

/*
 * session_active_count(tenant_id, user_id)
 */
Datum
sm_session_active_count(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmScan		scan;
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 0);
	text	   *user_id = PG_ARGISNULL(1) ? NULL : sm_arg_user_id(fcinfo, 1);
	TimestampTz now = GetCurrentTimestamp();
	int64		count = 0;

	schema = sm_schema_of(fcinfo);
	if (user_id)
	{
		sm_check_shard((uint16) sm_user_text_hash(user_id));
		sm_scan_by_user(&scan, schema, user_id, AccessShareLock);
	}
	else if (tenant_id)
		sm_scan_by_tenant(&scan, schema, tenant_id, AccessShareLock);
	else
		sm_scan_all(&scan, schema, AccessShareLock);
	while (sm_scan_next(&scan))
	{
		CHECK_FOR_INTERRUPTS();
		if (of_tenant(&scan.session, tenant_id) &&
			sm_session_life(schema, &scan.session, now) == SM_LIFE_ACTIVE)
			count++;
	}
	sm_scan_end(&scan);
	PG_RETURN_INT64(count);
}

/* What one session of many needs, to be reset after each. */
static MemoryContext
row_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "session_manager row",
								 ALLOCSET_DEFAULT_SIZES);
}

static bool
text_equal(const text *a, const text *b)
{
	return VARSIZE_ANY_EXHDR(a) == VARSIZE_ANY_EXHDR(b) &&
		memcmp(VARDATA_ANY(a), VARDATA_ANY(b), VARSIZE_ANY_EXHDR(a)) == 0;
}

/* Is a session one of a tenant's?  Every session is of the NULL tenant. */
static bool
of_tenant(const SmSession *session, const text *tenant_id)
{
	return tenant_id == NULL ||
		(session->tenant_id != NULL && text_equal(session->tenant_id, tenant_id));
}

/*
 * Is the session that the scan stands on alive, or may it be by now?  What the
 * scan sees as expired somebody may be extending, or have extended since; but
 * not what this transaction wrote, which it sees as it is.
 */
static bool
may_live(SmScan *scan)
{
	switch (sm_session_life(scan->schema, &scan->session, GetCurrentTimestamp()))
	{
		case SM_LIFE_ACTIVE:
			return true;
		case SM_LIFE_EXPIRED:
		case SM_LIFE_IDLE:
			return !sm_scan_row_is_settled(scan) && !sm_scan_row_is_ours(scan);
		case SM_LIFE_REVOKED:
			break;
	}
	return false;
}

/* Lock the row that the scan stands on; false if its session is not alive. */
static bool
lock_active(SmScan *scan)
{
	return sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitBlock) &&
		sm_session_life(scan->schema, &scan->session,
						GetCurrentTimestamp()) == SM_LIFE_ACTIVE;
}

/* End the live sessions that a scan gives, but for one. */
static int64
end_all(SmScan *scan, const text *tenant_id, const pg_uuid_t *except,
		text *reason)
{
	Ending		ending = {
		.schema = scan->schema,
		.tenant_id = tenant_id,
		.except = except,
		.reason = reason,
		.events = sm_events_begin(scan->schema),
		.per_row = AllocSetContextCreate(CurrentMemoryContext,
										 "session_manager invalidation",
										 ALLOCSET_DEFAULT_SIZES)
	};

	end_some(&ending, scan);
	while (ending.again != NIL)
	{
		text	   *user_id = linitial(ending.again);
		SmScan		more;

		ending.again = list_delete_first(ending.again);
		sm_scan_by_user(&more, ending.schema, user_id, RowExclusiveLock);
		end_some(&ending, &more);
		sm_scan_end(&more);
		pfree(user_id);
	}
	sm_events_end(ending.events);
	MemoryContextDelete(ending.per_row);
	return ending.ended;
}

/* One scan of those. */
static void
end_some(Ending *ending, SmScan *scan)
{
	while (sm_scan_next(scan))
	{
		MemoryContext old;
		text	   *user_id;

		CHECK_FOR_INTERRUPTS();
		if (!of_tenant(&scan->session, ending->tenant_id) ||
			(ending->except != NULL &&
			 memcmp(scan->session.session_id, ending->except, UUID_LEN) == 0) ||
			!may_live(scan))
			continue;

		user_id = cstring_to_text_with_len(VARDATA_ANY(scan->session.user_id),
										   VARSIZE_ANY_EXHDR(scan->session.user_id));
		if (!lock_active(scan))
		{
			/* perhaps another one is in its place, which the scan cannot see */
			ending->again = lappend(ending->again, user_id);
			continue;
		}
		pfree(user_id);

		old = MemoryContextSwitchTo(ending->per_row);
		sm_end_session(scan, ending->events, SM_EVENT_INVALIDATED, ending->reason);
		MemoryContextSwitchTo(old);
		MemoryContextReset(ending->per_row);
		if (++ending->ended % PROGRESS_STEP == 0)
			ereport(NOTICE,
					(errmsg("ended %lld sessions so far",
							(long long) ending->ended)));
	}
}

static int
compare_ids_descending(const void *a, const void *b)
{
	return memcmp(b, a, UUID_LEN);
}

/*
 * Return one row of session_list.  A session whose seal does not open is
 * listed all the same, without its auth: its owner must be able to end it.
 */
static void
list_row(SmResult *result, const SmSchema *schema, const SmSession *session,
		 bool is_current, TimestampTz now)
{
	Datum		values[12] = {0};
	bool		nulls[12] = {false};
	SmContent	content = {0};
	SmLife		life = sm_session_life(schema, session, now);

	/* a revoked key need not be there */
	if (!sm_session_key_revoked(schema, session) &&
		!sm_session_open(schema, session, &content))
		sm_warn_corrupt(session);

	values[0] = UUIDPGetDatum(session->session_id);
	values[1] = PointerGetDatum(session->tenant_id);
	nulls[1] = (session->tenant_id == NULL);
	values[2] = BoolGetDatum(is_current);
	values[3] = TimestampTzGetDatum(session->created_at);
	values[4] = TimestampTzGetDatum(session->last_seen_at);
	values[5] = TimestampTzGetDatum(session->expires_at);
	values[6] = TimestampTzGetDatum(session->absolute_expires_at);
	values[7] = InetPGetDatum(session->ip);
	nulls[7] = (session->ip == NULL);
	values[8] = PointerGetDatum(session->user_agent);
	nulls[8] = (session->user_agent == NULL);
	values[9] = PointerGetDatum(content.auth);
	nulls[9] = (content.auth == NULL);

	switch (life)
	{
		case SM_LIFE_ACTIVE:
			nulls[10] = nulls[11] = true;
			break;
		case SM_LIFE_REVOKED:
			values[10] = TimestampTzGetDatum(session->revoked_at);
			nulls[10] = !session->revoked;
			values[11] = session->revoked ? PointerGetDatum(session->revoked_reason)
				: CStringGetTextDatum("key_revoked");
			/* whoever revoked it by hand may have given none */
			nulls[11] = (DatumGetPointer(values[11]) == NULL);
			break;
		case SM_LIFE_EXPIRED:
			values[10] = TimestampTzGetDatum(Min(session->expires_at,
												 session->absolute_expires_at));
			values[11] = CStringGetTextDatum("expired");
			break;
		case SM_LIFE_IDLE:
			values[10] = TimestampTzGetDatum(sm_session_deadline(session));
			values[11] = CStringGetTextDatum("idle");
			break;
	}
	tuplestore_putvalues(result->store, result->desc, values, nulls);
	if (content.data)
		sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
}
