/*-------------------------------------------------------------------------
 *
 * pass.c
 *	  A pass of a worker through its database: how its steps begin a
 *	  transaction, when it has to leave, and when the next one follows.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "postmaster/interrupt.h"
#include "utils/guc.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "guc.h"
#include "maintenance/contain.h"
#include "maintenance/pass.h"

/* How long a pass may take, and after how long a failed one is retried. */
#define PASS_US			USECS_PER_SEC
#define RETRY_US		(3 * USECS_PER_SEC)

/*
 * Begin a batch as sm_batch_begin does, and record whether workers serve this
 * database.
 */
const SmSchema *
sm_pass_batch(SmPass *pass, const char *activity)
{
	const SmSchema *schema;

	CHECK_FOR_INTERRUPTS();
	if (ConfigReloadPending)
	{
		ConfigReloadPending = false;
		ProcessConfigFile(PGC_SIGHUP);
	}
	schema = sm_batch_begin(activity);
	/* one that was made since, as by pg_restore --clean, is for the next pass */
	if (schema != NULL && pass->may_maintain && schema->events != pass->maintained)
	{
		sm_batch_end();
		pass->unfinished = true;
		schema = NULL;
	}
	pass->served = (schema != NULL);
	if (schema != NULL)
		sm_check_at_once();
	return schema;
}

/*
 * Has the pass taken its time?  It then leaves, so that nobody who wants the
 * database waits for it.  So it does where somebody waits for what only the
 * beginning of the next one writes.
 */
bool
sm_pass_is_over(SmPass *pass)
{
	if (sm_clock() < pass->started_at + PASS_US && !sm_shared_in_a_hurry())
		return false;
	pass->unfinished = true;
	return true;
}

/*
 * How long to wait after a pass that failed, or did not get to maintenance,
 * longer each time.  The lock is held.
 */
int64
sm_pass_retry_gap(SmDatabase *database)
{
	int64		gap = RETRY_US << Min(database->failed_passes, 10);

	database->failed_passes++;
	return Min(gap, Max(RETRY_US,
						(int64) sm_sweep_interval * USECS_PER_SEC));
}
