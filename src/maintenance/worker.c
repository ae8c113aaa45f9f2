/*-------------------------------------------------------------------------
 *
 * worker.c
 *	  A worker: one pass through a database.
 *
 * A worker leaves after its pass, so that nobody who wants to drop, rename or
 * copy the database waits for long: findings of transactions that rolled back,
 * touches to be written, ended sessions, partitions, numbers of events,
 * re-sealing, each in transactions of its own, for a second at the most.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "guc.h"
#include "maintenance/activity.h"
#include "maintenance/carry_out.h"
#include "maintenance/contain.h"
#include "maintenance/flush.h"
#include "maintenance/partition.h"
#include "maintenance/pass.h"
#include "maintenance/reseal.h"
#include "maintenance/restore.h"
#include "maintenance/sweep.h"
#include "shared.h"

PGDLLEXPORT void sm_worker_main(Datum arg);

static void worker_gone(int code, Datum arg);
static void run_pass(SmPass *pass);
static void report(const SmPass *pass, uint64 deleted, uint64 requeued);
static void run_step(SmPass *pass, SmStep step, const char *what,
					 void (*work) (SmPass *pass));
static void look_for_extension(SmPass *pass);

/*
 * A worker: one pass through the database that the launcher names.
 */
void
sm_worker_main(Datum arg)
{
	SmPass		pass = {0};

	sm_batch_connect(DatumGetObjectId(arg));
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->worker_pid = MyProcPid;
	pass.started_at = sm_clock();
	pass.full = (sm_database->state == SM_DB_UNKNOWN ||
				 sm_database->next_pass <= pass.started_at);
	LWLockRelease(sm_shared->lock);
	before_shmem_exit(worker_gone, (Datum) 0);

	run_pass(&pass);
	proc_exit(0);
}

static void
worker_gone(int code, Datum arg)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->worker_pid = 0;
	LWLockRelease(sm_shared->lock);
}

/* The steps of a pass, of which a failed one keeps none of the others back. */
static void
run_pass(SmPass *pass)
{
	uint64		deleted = pg_atomic_read_u64(&sm_database->counters[SM_SWEPT]);
	uint64		requeued = pg_atomic_read_u64(&sm_database->counters[SM_REQUEUED]);

	pg_atomic_write_u32(&sm_database->wanted, 0);
	run_step(pass, SM_STEP_SWEEP,
			 "session_manager could not look for the extension",
			 look_for_extension);
	run_step(pass, SM_STEP_FINDINGS,
			 "session_manager could not record findings of rolled-back transactions",
			 sm_carry_out);
	run_step(pass, SM_STEP_TOUCHES,
			 "session_manager could not write times of last use",
			 sm_flush_touches);
	if (pass->full)
		run_step(pass, SM_STEP_SWEEP,
				 "session_manager could not look for a restore",
				 sm_restore_pass);
	if (pass->may_maintain)
	{
		run_step(pass, SM_STEP_SWEEP,
				 "session_manager could not delete ended sessions",
				 sm_sweep_pass);
		run_step(pass, SM_STEP_PARTITIONS,
				 "session_manager could not maintain the partitions of session_events",
				 sm_partitions_pass);
		run_step(pass, SM_STEP_PARTITIONS,
				 "session_manager could not count session events",
				 sm_activity_pass);
		run_step(pass, SM_STEP_RESEALING,
				 "session_manager could not re-seal sessions",
				 sm_reseal_pass);
	}
	pgstat_report_activity(STATE_IDLE, NULL);

	report(pass, deleted, requeued);
}

/*
 * Record what the pass has done, and when the next is due.  "deleted" and
 * "requeued" are what the counters showed before it.
 */
static void
report(const SmPass *pass, uint64 deleted, uint64 requeued)
{
	int64		now = sm_clock();

	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->last_pass_at = GetCurrentTimestamp();
	sm_database->last_pass = now;
	/* what a restore or a missing key holds up does not wait for the interval */
	if (pass->failed || (pass->full && pass->served && !pass->may_maintain))
		sm_database->next_pass = now + sm_pass_retry_gap(sm_database);
	else if (pass->full)
	{
		sm_database->next_pass = pass->unfinished ? now :
			now + (int64) sm_sweep_interval * USECS_PER_SEC;
		sm_database->failed_passes = 0;
	}
	if (pass->full)
	{
		sm_database->pass_us = now - pass->started_at;
		sm_database->swept = pg_atomic_read_u64(&sm_database->counters[SM_SWEPT]) - deleted;
		sm_database->requeued = pg_atomic_read_u64(&sm_database->counters[SM_REQUEUED]) - requeued;
		sm_database->unfinished = pass->unfinished;
	}
	LWLockRelease(sm_shared->lock);
}

/*
 * Take a step of a pass.  Should it fail as a whole, the others go on.
 */
static void
run_step(SmPass *pass, SmStep step, const char *what, void (*work) (SmPass *pass))
{
	if (!pass->served && work != look_for_extension)
		return;
	PG_TRY();
	{
		work(pass);
	}
	PG_CATCH();
	{
		ErrorData  *error;

		HOLD_INTERRUPTS();
		MemoryContextSwitchTo(TopMemoryContext);
		error = CopyErrorData();
		AbortCurrentTransaction();
		FlushErrorState();
		MemoryContextSwitchTo(TopMemoryContext);
		RESUME_INTERRUPTS();
		pass->failed = true;
		sm_failed(step, what, error);
	}
	PG_END_TRY();
}

static void
look_for_extension(SmPass *pass)
{
	if (sm_pass_batch(pass, "looking for the extension") != NULL)
		sm_batch_end();
}
