/*-------------------------------------------------------------------------
 *
 * clock.c
 *	  A clock that nobody can set, and what it tells of the one that shows
 *	  the time of day.
 *
 * Whether a session has expired is a question to the wall clock, and deleting
 * it cannot be taken back.  So maintenance deletes nothing when the wall clock
 * has just jumped forward by more than a day, as it does by mistake more often
 * than not; only when it still shows the same some minutes later.  When
 * something is due is never a question to the wall clock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <time.h>

#include "utils/timestamp.h"

#include "shared.h"

#define JUMP_US			USECS_PER_DAY
#define PATIENCE_US		(5 * USECS_PER_MINUTE)

/*
 * Microseconds by a clock that nobody can set.
 */
int64
sm_clock(void)
{
	struct timespec now;

	(void) clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64) now.tv_sec * USECS_PER_SEC + now.tv_nsec / 1000;
}

/*
 * Believe the wall clock.  Called when shared memory is made.
 */
void
sm_clock_startup(void)
{
	sm_shared->wall_clock.offset = GetCurrentTimestamp() - sm_clock();
}

/*
 * Has the wall clock jumped forward by more than a day, a moment ago?  A
 * caller that deletes by a time must have read it before asking.  The launcher
 * asks as well, all the time, so that no jump is missed.
 */
bool
sm_clock_in_doubt(void)
{
	SmWallClock *clock;
	int64		now;
	int64		jump;
	bool		begins = false;
	bool		doubt;

	if (sm_shared == NULL)
		return false;
	clock = &sm_shared->wall_clock;
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	now = sm_clock();
	jump = GetCurrentTimestamp() - now - clock->offset;
	doubt = jump > JUMP_US;
	if (doubt && (clock->doubted_since == 0 ||
				  jump > clock->jump + JUMP_US || jump < clock->jump - JUMP_US))
	{
		clock->doubted_since = now;
		begins = true;
	}
	else if (doubt && now >= clock->doubted_since + PATIENCE_US)
		doubt = false;
	clock->jump = doubt ? jump : 0;
	if (!doubt)
	{
		clock->offset += jump;
		clock->doubted_since = 0;
	}
	LWLockRelease(sm_shared->lock);

	if (begins)
		ereport(WARNING,
				(errmsg("the clock of the server has jumped forward by %lld days",
						(long long) ((jump + USECS_PER_DAY / 2) / USECS_PER_DAY)),
				 errdetail("Maintenance of session_manager deletes nothing for the next %d minutes.",
						   (int) (PATIENCE_US / USECS_PER_MINUTE)),
				 errhint("If the clock is wrong, set it back before then.")));
	return doubt;
}
