/*-------------------------------------------------------------------------
 *
 * bulk.c
 *	  What is done without a token to one session, or to all of a user, of a
 *	  tenant, of the database: end, patch.
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

#include "miscadmin.h"
#include "utils/memutils.h"

#include "session/bulk.h"
#include "session/lifecycle.h"
#include "session/locks.h"

/* A NOTICE tells of progress every so many sessions. */
#define PROGRESS_STEP	100000

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

static bool may_live(SmScan *scan);
static bool lock_active(SmScan *scan);
static bool is_live(SmScan *scan);
static int64 end_all(SmScan *scan, const text *tenant_id,
					 const pg_uuid_t *except, text *reason);
static void end_some(Ending *ending, SmScan *scan);

/*
 * End a session by its id, given a user only if it is that user's.  Returns
 * the user, or NULL if it was not live.
 */
text *
sm_invalidate_id(const SmSchema *schema, const pg_uuid_t *id,
				 const text *user_id, text *reason)
{
	SmScan		scan;
	text	   *owner = NULL;

	sm_check_shard(sm_id_bucket(id->data));
	sm_scan_by_id(&scan, schema, id->data, RowExclusiveLock);
	if (sm_scan_next(&scan) &&
		sm_session_of_user(&scan.session, user_id) &&
		lock_active(&scan))
	{
		if (is_live(&scan))
			owner = DatumGetTextPCopy(PointerGetDatum(scan.session.user_id));
		sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED, reason);
	}
	sm_scan_end(&scan);
	return owner;
}

/*
 * End all of a user's sessions, in one tenant if given.
 *
 * A token to be spared that is not one of a live session of this user spares
 * nothing: the caller asked for the user to be signed out.
 */
int64
sm_invalidate_user(const SmSchema *schema, text *user_id, text *except_token,
				   const text *tenant_id, text *reason)
{
	SmScan		scan;
	SmBoundedWaits waits;
	pg_uuid_t	spared;
	bool		spares;
	int64		ended;

	sm_check_shard((uint16) sm_user_text_hash(user_id));
	sm_bound_waits(&waits);
	sm_lock_user(user_id);
	spares = sm_live_id(schema, except_token, &spared);
	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	ended = end_all(&scan, tenant_id, spares ? &spared : NULL, reason);
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	return ended;
}

/*
 * End all of a tenant's sessions, or with NULL everybody's.
 */
int64
sm_invalidate_tenant(const SmSchema *schema, text *tenant_id, text *reason)
{
	SmScan		scan;
	SmBoundedWaits waits;
	int64		ended;

	sm_bound_waits(&waits);
	sm_wait_for_logins();
	if (tenant_id)
		sm_scan_by_tenant(&scan, schema, tenant_id, RowExclusiveLock);
	else
		sm_scan_all(&scan, schema, RowExclusiveLock);
	ended = end_all(&scan, tenant_id, NULL, reason);
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	return ended;
}

/*
 * Patch the data of all of a user's sessions, in one tenant if given.
 */
int64
sm_update_user(const SmSchema *schema, text *user_id, const text *tenant_id,
			   Jsonb *patch)
{
	SmScan		scan;
	SmBoundedWaits waits;
	SmPatch		by_others = {.patch = patch};
	SmPatched	patched;
	MemoryContext per_row = sm_row_context();
	int64		updated = 0;

	sm_check_shard((uint16) sm_user_text_hash(user_id));
	/* a login under way would otherwise keep what the patch changes */
	sm_bound_waits(&waits);
	sm_lock_user(user_id);
	sm_scan_by_user(&scan, schema, user_id, RowExclusiveLock);
	while (sm_scan_next(&scan))
	{
		MemoryContext old;

		CHECK_FOR_INTERRUPTS();
		if (!sm_session_of_tenant(&scan.session, tenant_id) ||
			!may_live(&scan) || !lock_active(&scan))
			continue;
		old = MemoryContextSwitchTo(per_row);
		sm_patch_session(&scan, &by_others, &patched);
		MemoryContextSwitchTo(old);
		MemoryContextReset(per_row);
		updated++;
	}
	sm_scan_end(&scan);
	sm_unbound_waits(&waits);
	MemoryContextDelete(per_row);
	return updated;
}

/*
 * The id of the live session that a token belongs to; false if there is none,
 * or no token.
 */
bool
sm_live_id(const SmSchema *schema, text *token_text, pg_uuid_t *id)
{
	SmToken		token;
	SmScan		scan;
	bool		live;

	if (token_text == NULL || !sm_token_from_text(token_text, &token))
		return false;
	live = sm_find_live(&scan, schema, &token, AccessShareLock,
						SM_EVENT_REJECTED, &sm_no_client) == SM_LOOKUP_LIVE;
	if (live)
		*id = *scan.session.session_id;
	sm_scan_end(&scan);
	return live;
}

/*
 * A memory context for what one session of many needs, to be reset after each.
 */
MemoryContext
sm_row_context(void)
{
	return AllocSetContextCreate(CurrentMemoryContext, "session_manager row",
								 ALLOCSET_DEFAULT_SIZES);
}

/*
 * Is the session that the scan stands on alive, or may it be by now?  What the
 * scan sees as expired somebody may be extending, or have extended since; but
 * not what this transaction wrote, which it sees as it is.
 */
static bool
may_live(SmScan *scan)
{
	switch (sm_session_own_life(scan->schema, &scan->session, GetCurrentTimestamp()))
	{
		case SM_LIFE_ACTIVE:
			return true;
		case SM_LIFE_EXPIRED:
		case SM_LIFE_IDLE:
			return !sm_scan_row_is_settled(scan) && !sm_scan_row_is_ours(scan);
		case SM_LIFE_REVOKED:
		case SM_LIFE_ACTOR_ENDED:
			break;
	}
	return false;
}

/*
 * Lock the row that the scan stands on; false if its session is not alive.
 * That of its actor does not count here: who ends a session, ends it also if
 * the actor's seems to be over, which somebody may be extending.
 */
static bool
lock_active(SmScan *scan)
{
	return sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitBlock) &&
		sm_session_own_life(scan->schema, &scan->session,
							GetCurrentTimestamp()) == SM_LIFE_ACTIVE;
}

/* Is the session whose row has been locked alive, and its actor's too? */
static bool
is_live(SmScan *scan)
{
	return sm_session_life(scan->schema, &scan->session,
						   GetCurrentTimestamp()) == SM_LIFE_ACTIVE;
}

/* End the live sessions that a scan returns, except one. */
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
		.per_row = sm_row_context()
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
		bool		live;

		CHECK_FOR_INTERRUPTS();
		if (!sm_session_of_tenant(&scan->session, ending->tenant_id) ||
			(ending->except != NULL &&
			 memcmp(scan->session.session_id, ending->except, UUID_LEN) == 0) ||
			!may_live(scan))
			continue;

		user_id = DatumGetTextPCopy(PointerGetDatum(scan->session.user_id));
		if (!lock_active(scan))
		{
			/* perhaps another one has replaced it, which the scan cannot see */
			ending->again = lappend(ending->again, user_id);
			continue;
		}
		pfree(user_id);

		old = MemoryContextSwitchTo(ending->per_row);
		live = is_live(scan);
		sm_end_session(scan, ending->events, SM_EVENT_INVALIDATED, ending->reason);
		MemoryContextSwitchTo(old);
		MemoryContextReset(ending->per_row);
		if (live && ++ending->ended % PROGRESS_STEP == 0)
			ereport(NOTICE,
					(errmsg("ended %lld sessions so far",
							(long long) ending->ended)));
	}
}
