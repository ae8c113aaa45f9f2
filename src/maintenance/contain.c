/*-------------------------------------------------------------------------
 *
 * contain.c
 *	  Failures of maintenance, kept to what failed.
 *
 * A row that cannot be deleted, because of a foreign key or a trigger of the
 * table's owner, must not keep others from being deleted.  So maintenance does
 * its work in subtransactions: a batch in one, and if that fails, each row in
 * one of its own.  What has failed in the end is recorded in shared memory, for
 * session_info and session_stats, and told in a WARNING.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "commands/trigger.h"
#include "nodes/parsenodes.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "maintenance/contain.h"

/* A WARNING for each step at most once in so many microseconds. */
#define WARNING_GAP_US	USECS_PER_SEC

static SmSharedPart part = {
	.name = "session_manager_failures",
	.per_database = SM_N_STEPS * sizeof(SmFailure)
};

/*
 * Have failures kept in shared memory.  Called once, from _PG_init.
 */
void
sm_contain_init(void)
{
	sm_shared_register(&part);
}

/*
 * The last failures of a database's steps: SM_N_STEPS of them.
 */
SmFailure *
sm_failures(const SmDatabase *database)
{
	return sm_shared_of(&part, database);
}

/*
 * Do something in a subtransaction.  If it fails, that is rolled back, and its
 * error returned; otherwise NULL.  Errors that are about the transaction as a
 * whole are raised.
 */
ErrorData *
sm_try(SmAction action, void *arg)
{
	MemoryContext caller = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	MemoryContext context = AllocSetContextCreate(caller, "session_manager maintenance",
												  ALLOCSET_DEFAULT_SIZES);
	ErrorData  *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		action(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(caller);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(caller);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode == ERRCODE_QUERY_CANCELED ||
			error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE)
			ReThrowError(error);
	}
	PG_END_TRY();
	MemoryContextSwitchTo(caller);
	CurrentResourceOwner = owner;
	MemoryContextDelete(context);
	return error;
}

/*
 * Record that maintenance could not do something, and go on.  Frees the error.
 *
 * Its message alone is told, not its detail, which may show a row.  It is
 * recorded in ASCII, as databases that read it may have other encodings.
 */
void
sm_failed(SmStep step, const char *what, ErrorData *error)
{
	static int64 warned_at[SM_N_STEPS];
	const char *message = error->message ? error->message : "unknown error";

	sm_record_failure(step, error->sqlerrcode, message);
	if (warned_at[step] == 0 || sm_clock() > warned_at[step] + WARNING_GAP_US)
	{
		warned_at[step] = sm_clock();
		ereport(WARNING,
				(errcode(error->sqlerrcode),
				 errmsg_internal("%s: %s", what, message),
				 errhint("It was skipped and will be tried again.")));
	}
	FreeErrorData(error);
}

/*
 * Count a failure of maintenance, and keep it as the last one of its step.
 */
void
sm_record_failure(SmStep step, int sqlerrcode, const char *message)
{
	SmFailure  *failure;
	int			n;

	if (sm_database == NULL)
		return;
	failure = &sm_failures(sm_database)[step];
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	failure->at = GetCurrentTimestamp();
	n = snprintf(failure->error, sizeof(failure->error), "%s: %s",
				 unpack_sql_state(sqlerrcode), message);
	n = Min(n, (int) sizeof(failure->error) - 1);
	for (int i = 0; i < n; i++)
		if (failure->error[i] < ' ' || failure->error[i] > '~')
			failure->error[i] = '?';
	LWLockRelease(sm_shared->lock);
	sm_count(SM_FINDINGS_FAILED + step);
}

/*
 * Have deferred constraints checked at once until the end of the transaction,
 * so that no row that violates one makes the commit fail.
 */
void
sm_check_at_once(void)
{
	ConstraintsSetStmt *all = makeNode(ConstraintsSetStmt);

	all->constraints = NIL;
	all->deferred = false;
	AfterTriggerSetState(all);
	pfree(all);
}

const char *
sm_step_name(SmStep step)
{
	static const char *const names[] = {
		[SM_STEP_FINDINGS] = "findings",
		[SM_STEP_TOUCHES] = "touches",
		[SM_STEP_SWEEP] = "sweep",
		[SM_STEP_PARTITIONS] = "partitions",
		[SM_STEP_RESEALING] = "resealing"
	};

	return names[step];
}
