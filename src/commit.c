/*-------------------------------------------------------------------------
 *
 * commit.c
 *	  What the commit of a transaction waits for that ended sessions or
 *	  replaced a token: the disk, whatever synchronous_commit says, and with
 *	  session_manager.revoke_commit = remote_apply the synchronous standbys,
 *	  so that whoever reads there next finds the session ended.
 *
 * PostgreSQL waits for standbys without limit once a transaction has
 * committed: statement_timeout ends before that.  Here the wait ends after
 * session_manager.revoke_commit_timeout, as if the user had canceled it, and a
 * WARNING says so.
 *
 * synchronous_commit is set as the transaction commits, and not before: nothing
 * that the transaction does after the revocation undoes that, as the end of a
 * function would that sets it for itself.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "replication/syncrep.h"
#include "replication/walsender.h"
#include "storage/proc.h"
#include "utils/guc.h"
#include "utils/timeout.h"

#include "commit.h"
#include "guc.h"

/* How often to look, past the limit, whether the wait is on, in milliseconds. */
#define LOOK_AGAIN	100

/* the subtransaction because of which the commit waits for standbys */
static SubTransactionId waits = InvalidSubTransactionId;
static bool has_timer;
static TimeoutId timer;
static volatile sig_atomic_t gave_up;

static bool names_standbys(void);
static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);
static void raise_synchronous_commit(void);
static void start_timer(void);
static bool stop_timer(void);
static void give_up(void);

/*
 * Register callbacks for the ends of transactions.  Called once, from _PG_init.
 */
void
sm_commit_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

/*
 * What this transaction does must not come undone after a crash, and must be
 * known to standbys if they are waited for.
 */
void
sm_commit_durably(void)
{
	ForceSyncCommit();
	sm_commit_visibly();
}

/*
 * What this transaction does must be known to standbys if they are waited for;
 * not if the subtransaction that does it is rolled back.
 */
void
sm_commit_visibly(void)
{
	if (sm_revoke_commit == SM_REVOKE_REMOTE_APPLY &&
		waits == InvalidSubTransactionId)
		waits = GetCurrentSubTransactionId();
}

/*
 * What session_info says of it.
 */
const char *
sm_commit_state(void)
{
	if (sm_revoke_commit == SM_REVOKE_LOCAL)
		return "local";
	return names_standbys() ? "remote_apply" :
		"remote_apply, but waits for no standby: synchronous_standby_names is empty";
}

static bool
names_standbys(void)
{
	return SyncRepStandbyNames != NULL && SyncRepStandbyNames[0] != '\0';
}

static void
at_xact_end(XactEvent event, void *arg)
{
	if (waits == InvalidSubTransactionId)
		return;
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			raise_synchronous_commit();
			if (sm_revoke_commit_timeout > 0 && SyncRepRequested() && names_standbys())
				start_timer();
			break;
		case XACT_EVENT_COMMIT:
			waits = InvalidSubTransactionId;
			if (stop_timer())
				ereport(WARNING,
						(errmsg("no standby has confirmed within %d ms that it applied the end of a session",
								sm_revoke_commit_timeout),
						 errdetail("The session has ended on this server. A standby may serve it until it has replayed this transaction.")));
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
			waits = InvalidSubTransactionId;
			(void) stop_timer();
			break;
		default:
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	if (waits != mine)
		return;
	if (event == SUBXACT_EVENT_COMMIT_SUB)
		waits = parent;
	else if (event == SUBXACT_EVENT_ABORT_SUB)
		waits = InvalidSubTransactionId;
}

/* As SET LOCAL does, until the end of the transaction. */
static void
raise_synchronous_commit(void)
{
	if (synchronous_commit < SYNCHRONOUS_COMMIT_REMOTE_APPLY)
		(void) set_config_option("synchronous_commit", "remote_apply", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
}

static void
start_timer(void)
{
	TimestampTz limit = TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													sm_revoke_commit_timeout);

	if (!has_timer)
	{
		timer = RegisterTimeout(USER_TIMEOUT, give_up);
		has_timer = true;
	}
	enable_timeout_every(timer, limit, LOOK_AGAIN);
}

/*
 * True if the timer has ended the wait.  If it came when the wait was over
 * anyway, it must not cancel the next statement.
 */
static bool
stop_timer(void)
{
	bool		ended;

	if (!has_timer || !get_timeout_active(timer))
		return false;
	disable_timeout(timer, false);
	ended = gave_up && !QueryCancelPending;
	if (gave_up)
		QueryCancelPending = false;
	gave_up = false;
	return ended;
}

/*
 * The timer's signal handler: end the wait if it is on.  What comes before it
 * can still fail, and must not be canceled.
 */
static void
give_up(void)
{
	if (MyProc != NULL && MyProc->syncRepState == SYNC_REP_WAITING)
	{
		gave_up = true;
		QueryCancelPending = true;
		InterruptPending = true;
		SetLatch(MyLatch);
	}
}
