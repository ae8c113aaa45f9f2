/*-------------------------------------------------------------------------
 *
 * user.c
 *	  The functions that find, end, patch, list and count sessions without a
 *	  token: one by its id, or a user's, a tenant's, everybody's.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "session/authenticate.h"
#include "session/bulk.h"
#include "session/count.h"
#include "session/device_key.h"
#include "session/lifecycle.h"
#include "session/locks.h"
#include "sql/arguments.h"
#include "sql/result.h"

PG_FUNCTION_INFO_V1(sm_session_get_id);
PG_FUNCTION_INFO_V1(sm_session_invalidate_id);
PG_FUNCTION_INFO_V1(sm_session_invalidate_all);
PG_FUNCTION_INFO_V1(sm_session_invalidate_tenant);
PG_FUNCTION_INFO_V1(sm_session_invalidate_everything);
PG_FUNCTION_INFO_V1(sm_session_update_user);
PG_FUNCTION_INFO_V1(sm_session_list);
PG_FUNCTION_INFO_V1(sm_session_active_count);
PG_FUNCTION_INFO_V1(sm_session_active_estimate);

/* Which of a user's sessions to list. */
typedef struct ListedPage
{
	text	   *user_id;
	bool		include_ended;
	const pg_uuid_t *after;		/* or NULL */
	int			max_rows;
	TimestampTz now;
} ListedPage;

static pg_uuid_t *find_page(const SmSchema *schema, const ListedPage *page, int *n);
static int	compare_ids_descending(const void *a, const void *b);
static void list_row(SmResult *result, const SmSchema *schema,
					 const SmSession *session, bool is_current,
					 TimestampTz now);

/*
 * session_get_id(session_id, user_id)
 */
Datum
sm_session_get_id(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	text	   *user_id = sm_arg_user_id(fcinfo, 1);
	SmScan		scan;
	SmSession  *session = &scan.session;
	TimestampTz ends_at;
	static const Oid types[] = {
		TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	Datum		values[8];
	bool		nulls[8] = {false};

	if (PG_ARGISNULL(0))
		return sm_result_none(fcinfo);
	if (!sm_find_live_id(&scan, schema, PG_GETARG_UUID_P(0), user_id))
	{
		sm_scan_end(&scan);
		return sm_result_none(fcinfo);
	}
	ends_at = sm_session_deadline(session);
	if (session->actor_session_id != NULL)
		ends_at = Min(ends_at, sm_actor_deadline(schema, session));

	values[0] = PointerGetDatum(session->tenant_id);
	nulls[0] = (session->tenant_id == NULL);
	values[1] = PointerGetDatum(session->actor_id);
	nulls[1] = (session->actor_id == NULL);
	values[2] = TimestampTzGetDatum(session->created_at);
	values[3] = TimestampTzGetDatum(session->authenticated_at);
	values[4] = TimestampTzGetDatum(session->last_seen_at);
	values[5] = TimestampTzGetDatum(session->expires_at);
	values[6] = TimestampTzGetDatum(session->absolute_expires_at);
	values[7] = TimestampTzGetDatum(ends_at);
	sm_result_row(fcinfo, types, lengthof(types), values, nulls);
	sm_scan_end(&scan);
	return (Datum) 0;
}

/*
 * session_invalidate_id(session_id, user_id, reason)
 */
Datum
sm_session_invalidate_id(PG_FUNCTION_ARGS)
{
	text	   *user_id = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text	   *reason = sm_arg_reason(fcinfo, 2);
	text	   *owner;

	PreventCommandIfReadOnly("session_invalidate_id()");
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	owner = sm_invalidate_id(sm_called_schema(fcinfo), PG_GETARG_UUID_P(0),
							 user_id, reason);
	if (owner == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(owner);
}

/*
 * session_invalidate_all(user_id, except_token, tenant_id, reason)
 */
Datum
sm_session_invalidate_all(PG_FUNCTION_ARGS)
{
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	text	   *except_token = PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1);
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 2);
	text	   *reason = sm_arg_reason(fcinfo, 3);

	PreventCommandIfReadOnly("session_invalidate_all()");
	PG_RETURN_INT64(sm_invalidate_user(sm_called_schema(fcinfo), user_id,
									   except_token, tenant_id, reason));
}

/*
 * session_invalidate_tenant(tenant_id, reason)
 */
Datum
sm_session_invalidate_tenant(PG_FUNCTION_ARGS)
{
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 0);
	text	   *reason = sm_arg_reason(fcinfo, 1);

	PreventCommandIfReadOnly("session_invalidate_tenant()");
	if (tenant_id == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("tenant_id must not be null")));
	PG_RETURN_INT64(sm_invalidate_tenant(sm_called_schema(fcinfo), tenant_id,
										 reason));
}

/*
 * session_invalidate_everything(reason)
 */
Datum
sm_session_invalidate_everything(PG_FUNCTION_ARGS)
{
	text	   *reason = sm_arg_reason(fcinfo, 0);

	PreventCommandIfReadOnly("session_invalidate_everything()");
	PG_RETURN_INT64(sm_invalidate_tenant(sm_called_schema(fcinfo), NULL, reason));
}

/*
 * session_update_user(user_id, patch, tenant_id)
 */
Datum
sm_session_update_user(PG_FUNCTION_ARGS)
{
	text	   *user_id = sm_arg_user_id(fcinfo, 0);
	Jsonb	   *patch = sm_arg_object(fcinfo, 1, "patch");
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 2);

	PreventCommandIfReadOnly("session_update_user()");
	if (patch == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("patch must not be null")));
	PG_RETURN_INT64(sm_update_user(sm_called_schema(fcinfo), user_id, tenant_id,
								   patch));
}

/*
 * session_list(user_id, current_token, include_ended, after, max_rows)
 */
Datum
sm_session_list(PG_FUNCTION_ARGS)
{
	const SmSchema *schema;
	SmResult	result;
	static const Oid types[] = {
		UUIDOID, TEXTOID, BOOLOID, TIMESTAMPTZOID, TIMESTAMPTZOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID, INETOID, TEXTOID, JSONBOID,
		TIMESTAMPTZOID, TEXTOID, TEXTOID, INTERVALOID, TEXTOID,
		TIMESTAMPTZOID, TIMESTAMPTZOID
	};
	ListedPage	page = {
		.user_id = sm_arg_user_id(fcinfo, 0),
		.include_ended = !PG_ARGISNULL(2) && PG_GETARG_BOOL(2),
		.after = PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3),
		.max_rows = sm_arg_max_rows(fcinfo, 4),
		.now = GetCurrentTimestamp()
	};
	pg_uuid_t	current;
	bool		has_current;
	pg_uuid_t  *ids;
	int			n;
	MemoryContext per_row = sm_row_context();

	schema = sm_called_schema(fcinfo);
	sm_check_shard((uint16) sm_user_text_hash(page.user_id));
	has_current = sm_live_id(schema,
							 PG_ARGISNULL(1) ? NULL : PG_GETARG_TEXT_PP(1),
							 &current);
	ids = find_page(schema, &page, &n);
	result = sm_result_begin(fcinfo, types, lengthof(types));
	for (int i = 0; i < n; i++)
	{
		MemoryContext old;
		SmScan		scan;

		CHECK_FOR_INTERRUPTS();
		old = MemoryContextSwitchTo(per_row);
		sm_scan_by_id(&scan, schema, ids[i].data, AccessShareLock);
		if (sm_scan_next(&scan))
			list_row(&result, schema, &scan.session,
					 has_current && memcmp(&ids[i], &current, UUID_LEN) == 0,
					 page.now);
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
	text	   *tenant_id = sm_arg_tenant_id(fcinfo, 0);
	text	   *user_id = PG_ARGISNULL(1) ? NULL : sm_arg_user_id(fcinfo, 1);

	PG_RETURN_INT64(sm_active_count(sm_called_schema(fcinfo), user_id, tenant_id));
}

/*
 * session_active_estimate()
 */
Datum
sm_session_active_estimate(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(sm_active_estimate(sm_called_schema(fcinfo)));
}

/*
 * The ids of a page's sessions, so that only those of the page are opened.
 * Session ids sort by the time of their making, so they serve as its key.
 */
static pg_uuid_t *
find_page(const SmSchema *schema, const ListedPage *page, int *n)
{
	SmScan		scan;
	pg_uuid_t  *ids = NULL;
	int			found = 0;
	int			allocated = 0;

	sm_scan_by_user(&scan, schema, page->user_id, AccessShareLock);
	while (sm_scan_next(&scan))
	{
		pg_uuid_t  *id = scan.session.session_id;

		if (page->after != NULL && memcmp(id, page->after, UUID_LEN) >= 0)
			continue;
		if (!page->include_ended &&
			sm_session_life(schema, &scan.session, page->now) != SM_LIFE_ACTIVE)
			continue;
		if (found == allocated)
		{
			allocated = Max(16, allocated * 2);
			ids = ids ? repalloc(ids, allocated * sizeof(pg_uuid_t))
				: palloc(allocated * sizeof(pg_uuid_t));
		}
		ids[found++] = *id;
	}
	sm_scan_end(&scan);

	if (found > 0)
		qsort(ids, found, sizeof(pg_uuid_t), compare_ids_descending);
	*n = Min(found, page->max_rows);
	return ids;
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
	Datum		values[17] = {0};
	bool		nulls[17] = {false};
	SmContent	content = {0};
	Interval	idle_timeout = {.time = sm_session_idle_timeout(session)};
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
			/* an UPDATE by hand may have given none */
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
		case SM_LIFE_ACTOR_ENDED:
			/* when, its own row cannot say */
			nulls[10] = true;
			values[11] = CStringGetTextDatum("actor_ended");
			break;
	}
	values[12] = PointerGetDatum(session->actor_id);
	nulls[12] = (session->actor_id == NULL);
	values[13] = IntervalPGetDatum(&idle_timeout);
	nulls[13] = (idle_timeout.time == 0);
	if (content.device_key)
		values[14] = PointerGetDatum(sm_device_key_thumbprint(content.device_key));
	nulls[14] = (DatumGetPointer(values[14]) == NULL);
	values[15] = TimestampTzGetDatum(session->device_bound_at);
	values[16] = TimestampTzGetDatum(session->device_proved_at);
	nulls[15] = nulls[16] = (session->device_binding_id == NULL);
	tuplestore_putvalues(result->store, result->desc, values, nulls);
	if (content.data)
		sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
}
