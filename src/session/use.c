/*-------------------------------------------------------------------------
 *
 * use.c
 *	  A use of a session by its holder: may it be from there, and what does
 *	  it leave behind?
 *
 * Reads do not write: a use that is due is recorded in shared memory; only where
 * there is none, or no room in it, is the row written, and then without
 * waiting for anybody, and never in a read-only transaction.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "storage/lmgr.h"

#include "guc.h"
#include "session/events.h"
#include "session/finding.h"
#include "session/touch.h"
#include "session/use.h"
#include "shared.h"

/* The part of an idle timeout that a cached session may go unnoticed. */
#define IDLE_SHARE			4

static int64 touch_interval(int64 idle_timeout);

/*
 * The part of sm_client_allowed for when client_binding is on.
 */
bool
sm_client_check(const SmSchema *schema, const SmToken *token,
				const SmSession *session, const SmClient *client,
				bool may_move, bool *moved)
{
	if (!sm_client_moved(session->ip, client->ip))
		return true;
	if (sm_client_binding == SM_BINDING_STRICT)
	{
		sm_refused(schema, SM_EVENT_CLIENT_CHANGED, token, session, "refused",
				   client);
		return false;
	}
	if (client->ip == NULL || !may_move)
		return true;

	*moved = true;
	if (XactReadOnly)
	{
		/* the row is slow to follow */
		sm_refused(schema, SM_EVENT_CLIENT_CHANGED, token, session, "moved",
				   client);
	}
	else if (!sm_finding_keep(SM_EVENT_CLIENT_CHANGED, session->session_id,
							  true, "moved", 0, client))
	{
		JsonbParseState *detail = sm_detail_begin();
		SmEvent		event = {
			.type = SM_EVENT_CLIENT_CHANGED,
			.session_id = session->session_id,
			.client = *client
		};

		sm_detail_cstring(&detail, "cause", "moved");
		event.detail = sm_detail_end(&detail);
		sm_event_of_unlocked(schema, &event);
	}
	return true;
}

/*
 * Can a use of a session be recorded?  On a standby nobody writes, and without
 * shared memory a read-only transaction has nowhere to record it.  To be asked
 * once the schema has been found, and with it the shared memory.
 */
bool
sm_can_touch(void)
{
	return sm_worker_comes() || !XactReadOnly;
}

/*
 * Is a use of a session to be recorded?  The first use of a rotated token always
 * is: it tells a lost answer from a replay.
 */
bool
sm_touch_due(const SmSession *session, const SmToken *token, TimestampTz now)
{
	return (token->match == SM_MATCH_CURRENT && !session->successor_used) ||
		now - session->last_seen_at >=
		touch_interval(sm_session_idle_timeout(session));
}

/*
 * How old a cached copy of a session may get, in microseconds.
 *
 * A cached session is used without anybody noticing.  It was cached by a read
 * at which its last use had been recorded at most touch_interval, or half of the
 * idle timeout, ago; so a share of the timeout that is below the other half
 * keeps a session that is in use from idling out.
 */
int64
sm_cached_max_age(void)
{
	int64		max_age = (int64) sm_cache_ttl * USECS_PER_SEC;

	if (sm_idle_timeout > 0)
		max_age = Min(max_age,
					  (int64) sm_idle_timeout * USECS_PER_SEC / IDLE_SHARE);
	return max_age;
}

/*
 * May uses of a session go unnoticed for as long as a cached copy of it is
 * served?  Its last use was recorded at most a touch interval before it was
 * cached: both together must leave a share of its idle timeout.  Where all
 * have that of the setting, they do.
 */
bool
sm_may_go_unnoticed(const SmSession *session)
{
	int64		idle_timeout = sm_session_idle_timeout(session);

	return idle_timeout == 0 ||
		touch_interval(idle_timeout) + sm_cached_max_age() <=
		idle_timeout - idle_timeout / IDLE_SHARE;
}

/*
 * Record a use of the session that the scan stands on: in shared memory for a
 * worker to write, or else in its row.  If another transaction has locked that
 * row, or the table, it is recording more than a use: then nothing is written,
 * so that a read does not wait.  A session that "moved" to another network is
 * written at once, so that the next use is compared with that.  Nothing of the
 * row may be looked at afterwards.
 */
void
sm_touch_session(SmScan *scan, const SmToken *token, TimestampTz seen_at,
				 bool moved, const SmClient *client)
{
	SmChanges	changes = {0};
	SmSession  *session = &scan->session;
	TimestampTz seen = session->last_seen_at;
	TimestampTz now;
	SmMatch		match;

	if (sm_worker_comes() && (!moved || XactReadOnly))
	{
		bool		first = token->match == SM_MATCH_CURRENT && !session->successor_used;

		/*
		 * There is room for the first use of one rotation.  One that may be
		 * rolled back must not take it from the one before, whose successor
		 * has been used: its use is rolled back as well.
		 */
		bool		may_vanish = first && !XactReadOnly && sm_scan_row_is_ours(scan);

		if (!may_vanish &&
			sm_touch_record(session->session_id, seen_at,
							first ? &session->rotated_at : NULL, client))
		{
			sm_count(SM_TOUCHES_BUFFERED);
			return;
		}
		if (!may_vanish)
			sm_count(SM_TOUCHES_FALLBACK);
	}
	if (XactReadOnly)
	{
		sm_count(SM_TOUCHES_DROPPED);
		return;
	}

	if (!ConditionalLockRelationOid(scan->schema->sessions, RowExclusiveLock) ||
		!sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip))
		return;
	now = GetCurrentTimestamp();
	if (sm_session_life(scan->schema, session, now) != SM_LIFE_ACTIVE)
		return;
	match = sm_authenticate(scan->schema, session, token);
	if (!sm_token_works(session, match, now) ||
		(session->last_seen_at != seen && session->successor_used && !moved))
		return;
	sm_mark_used(&changes, session, match == SM_MATCH_CURRENT, now);
	sm_change_client(&changes, client);
	sm_scan_update(scan, &changes);
	sm_count(SM_TOUCHES_DIRECT);
}

/*
 * What every use of a session by its holder leaves in a row being written.
 */
void
sm_mark_used(SmChanges *changes, const SmSession *session, bool current,
			 TimestampTz now)
{
	sm_change(changes, Anum_last_seen_at, TimestampTzGetDatum(now));
	if (current && !session->successor_used)
		sm_change(changes, Anum_successor_used_at, TimestampTzGetDatum(now));
}

/* How accurate the time of last use has to be. */
static int64
touch_interval(int64 idle_timeout)
{
	int64		interval = (int64) sm_touch_interval * USECS_PER_SEC;

	/* a session in use must not look idle for want of accuracy */
	return idle_timeout == 0 ? interval : Min(interval, idle_timeout / 2);
}
