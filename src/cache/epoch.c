/*-------------------------------------------------------------------------
 *
 * epoch.c
 *	  The epoch under which cached values count: made, renewed, ended.
 *
 * - dead_at in shared memory is moved before an epoch is asked for.
 * - One epoch at a time.  Its key is overwritten by a fresh id, renewed only
 *	 by a script that finds the id still there, and given an absolute end.
 * - An epoch that was made on one connection is never used on the next: that
 *	 one begins when dead_at is over.
 *
 * The absolute end is by the clock of Redis, which is counted on here from
 * what it last showed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "cache/cache.h"
#include "cache/epoch.h"
#include "cache/fence.h"
#include "cache/link.h"
#include "keys/crypto.h"

#define MS				INT64CONST(1000)	/* of sm_clock() */

#define RENEW_US		(500 * MS)
#define RETRY_US		(10 * MS)

/* How far a clock of Redis may have been set back before it is noticed. */
#define CLOCK_SLACK_MS	"2090"
#define CLOCK_TOLERANCE_MS	50

/*
 * KEYS[1] is the epoch's key; ARGV: the id that it must have, or nothing; the
 * id that it gets; its end in Unix milliseconds; how far away that may be.
 * Returns whether it was done, and the time by Redis.  An end in the past is
 * how to learn the time.
 */
static const char *const epoch_script =
"local t = redis.call('TIME')\n"
"local now = t[1] * 1000 + math.floor(t[2] / 1000)\n"
"local left = ARGV[3] - now\n"
"if left <= 0 or left > tonumber(ARGV[4]) then\n"
"  if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end\n"
"  return {0, now}\n"
"end\n"
"if ARGV[1] ~= '' and redis.call('GET', KEYS[1]) ~= ARGV[1] then return {0, now} end\n"
"redis.call('SET', KEYS[1], ARGV[2], 'PXAT', ARGV[3])\n"
"return {1, now}\n";

static struct
{
	char		key[64];		/* in Redis */
	void		(*died) (void); /* tells the worker */
	SmEpochState state;
	uint32		number;			/* tells those of this worker apart */
	char		id[33];
	int64		renew_at;
	bool		end_wanted;
}			epoch;

/* Redis's clock: what it showed, and when the answer came. */
static struct
{
	bool		known;			/* on this connection */
	int64		ms;
	int64		at;				/* by sm_clock() */
}			redis_clock;

static void clock_answered(const SmRequest *request, const SmRedisAnswer *answer);
static bool set_clock(const SmRequest *request, int64 ms);
static void renew_epoch(bool nothing_waits);
static void send_script(const char *expected, int64 now);
static void epoch_answered(const SmRequest *request, const SmRedisAnswer *answer);
static void end_answered(const SmRequest *request, const SmRedisAnswer *answer);
static bool concerns_current(const SmRequest *request);
static void epoch_has_come_alive(void);
static void epoch_has_died(void);

/*
 * "died" is called whenever it is certain that no epoch is alive.
 */
void
sm_epoch_init(void (*died) (void))
{
	pg_uuid_t  *installation = (pg_uuid_t *) sm_cache->installation;

	snprintf(epoch.key, sizeof(epoch.key), "session:epoch:%s",
			 DatumGetCString(DirectFunctionCall1(uuid_out,
												 UUIDPGetDatum(installation))));
	epoch.died = died;
}

/*
 * On a new connection: learn the time, and remove an epoch that Redis may have
 * come back with from disk.
 */
void
sm_epoch_connect(void)
{
	sm_link_send(sm_link_expect_success, NULL, 0, "DEL", epoch.key, NULL);
	sm_link_send(clock_answered, NULL, 0,
				 "EVAL", epoch_script, "1", epoch.key, "", "", "0", NULL);
}

/*
 * The connection has ended.
 */
void
sm_epoch_disconnect(void)
{
	epoch.state = SM_EPOCH_FORMER;
	redis_clock.known = false;
}

static void
clock_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	if (!sm_link_is_success(answer))
		return;
	(void) set_clock(request, answer->integers[1]);
	sm_link_report(SM_LINK_WAITING, NULL);
}

/*
 * False if the clock has been set back since it was last seen: then an epoch
 * may end later than it should.
 */
static bool
set_clock(const SmRequest *request, int64 ms)
{
	bool		set_back = redis_clock.known &&
		ms + CLOCK_TOLERANCE_MS <
		redis_clock.ms + (request->sent_at - redis_clock.at) / 1000;

	redis_clock.known = true;
	redis_clock.ms = ms;
	redis_clock.at = sm_clock();
	if (set_back)
		sm_link_log(false, psprintf("clock of Redis at %s has been set back: ending the epoch for database \"%s\"",
									sm_link_address(), sm_link_database()));
	return !set_back;
}

/*
 * Once it is certain that no epoch of an earlier connection is alive, this one
 * may make its own.
 */
void
sm_epoch_await_former(void)
{
	if (epoch.state == SM_EPOCH_FORMER && redis_clock.known && sm_epoch_is_over())
		epoch_has_died();
}

SmEpochState
sm_epoch_state(void)
{
	return epoch.state;
}

/*
 * May an epoch of this connection be in Redis?
 */
bool
sm_epoch_is_known(void)
{
	return epoch.state >= SM_EPOCH_REQUESTED;
}

/*
 * Is no epoch alive in Redis, for certain?  If one may be, the worker wakes up
 * when it no longer can.
 */
bool
sm_epoch_is_over(void)
{
	int64		end;
	bool		over = sm_cache_epoch_is_over(&end);

	if (!over)
		sm_link_wake_by(end + 1);
	return over;
}

/*
 * Make an epoch.  False if a commit has been waiting for too long.
 */
bool
sm_epoch_make(void)
{
	int64		now;
	bool		overdue;
	uint8		id[16];

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	now = sm_clock();
	overdue = sm_fence_is_overdue(now);
	if (!overdue)
		sm_cache->dead_at = now + SM_EPOCH_MAX_US;
	LWLockRelease(sm_shared->cache_lock);
	if (overdue)
		return false;

	sm_random(id, sizeof(id));
	sm_hex_encode(epoch.id, id, sizeof(id));
	epoch.number++;
	epoch.state = SM_EPOCH_REQUESTED;
	epoch.end_wanted = false;
	send_script("", now);
	return true;
}

/*
 * Renew or end the epoch, as is due.  It may be renewed if nothing_waits().
 */
void
sm_epoch_tend(bool (*nothing_waits) (void))
{
	if (epoch.end_wanted)
		sm_epoch_end();
	if (sm_epoch_is_over())
		epoch_has_died();
	else if (epoch.state == SM_EPOCH_ALIVE)
	{
		if (sm_clock() >= epoch.renew_at)
			renew_epoch(nothing_waits());
		if (epoch.state == SM_EPOCH_ALIVE)
			sm_link_wake_by(epoch.renew_at);
	}
}

static void
renew_epoch(bool nothing_waits)
{
	int64		now;
	bool		over;

	/* one look at the clock: a commit waits no longer because we did not run */
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	now = sm_clock();
	/* whoever has found it dead must not be proved wrong */
	over = (now > sm_cache->dead_at);
	nothing_waits = nothing_waits && !sm_fence_is_overdue(now);
	if (!over && nothing_waits)
		sm_cache->dead_at = now + SM_EPOCH_MAX_US;
	LWLockRelease(sm_shared->cache_lock);
	if (over)
		epoch_has_died();
	else if (nothing_waits)
		send_script(epoch.id, now);
	else
		epoch.renew_at = now + RETRY_US;
}

/*
 * Redis showed redis_clock.ms before redis_clock.at, so it shows more now than
 * what that adds up to; the end asked for is at most SM_EPOCH_MS away.
 */
static void
send_script(const char *expected, int64 now)
{
	char		end[24];

	snprintf(end, sizeof(end), INT64_FORMAT,
			 redis_clock.ms + (now - redis_clock.at) / 1000 + SM_EPOCH_MS);
	sm_link_send(epoch_answered, &epoch.number, sizeof(epoch.number),
				 "EVAL", epoch_script, "1", epoch.key,
				 expected, epoch.id, end, CLOCK_SLACK_MS, NULL);
	epoch.renew_at = now + RENEW_US;
}

static void
epoch_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	/* the script writes one thing, or nothing at all */
	if (answer->kind == SM_REDIS_ERROR &&
		epoch.state == SM_EPOCH_REQUESTED && concerns_current(request))
		epoch_has_died();
	if (!sm_link_is_success(answer))
		return;
	if (!set_clock(request, answer->integers[1]))
		epoch.end_wanted = true;
	if (!concerns_current(request) || !sm_epoch_is_known())
		return;
	if (answer->integers[0] != 1)
		epoch_has_died();
	else if (epoch.state == SM_EPOCH_REQUESTED)
		epoch_has_come_alive();
}

/*
 * Something must not be served that cannot be named session by session.
 */
void
sm_epoch_want_end(void)
{
	epoch.end_wanted = true;
}

bool
sm_epoch_end_is_wanted(void)
{
	return epoch.end_wanted;
}

/*
 * End the epoch before its time.
 */
void
sm_epoch_end(void)
{
	if (epoch.state != SM_EPOCH_REQUESTED && epoch.state != SM_EPOCH_ALIVE)
		return;
	sm_link_send(end_answered, &epoch.number, sizeof(epoch.number),
				 "DEL", epoch.key, NULL);
	epoch.state = SM_EPOCH_ENDING;
}

static void
end_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	if (sm_link_is_success(answer) && concerns_current(request))
		epoch_has_died();
}

static bool
concerns_current(const SmRequest *request)
{
	return memcmp(request->context, &epoch.number, sizeof(epoch.number)) == 0;
}

static void
epoch_has_come_alive(void)
{
	epoch.state = SM_EPOCH_ALIVE;
	sm_link_report(SM_LINK_UP, NULL);
	sm_count(SM_CACHE_EPOCHS);
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_cache->epoch_at = GetCurrentTimestamp();
	LWLockRelease(sm_shared->cache_lock);
}

/*
 * Its time is over, or Redis has told, on the connection that it was made on.
 * Nobody has to wait for tombstones any more.
 */
static void
epoch_has_died(void)
{
	epoch.state = SM_EPOCH_NONE;
	epoch.died();
	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	sm_cache->dead_at = 0;
	sm_cache->epoch_at = 0;
	sm_cache->former_shard = false;
	sm_fence_open_all();
	LWLockRelease(sm_shared->cache_lock);
}
