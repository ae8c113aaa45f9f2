/*-------------------------------------------------------------------------
 *
 * transaction.c
 *	  Transactions of the cache worker.
 *
 * SIGTERM interrupts one, as it does everywhere.  Between them there is
 * nothing to interrupt, nor to complain of: then the worker leaves in its own
 * way.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <signal.h>

#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "cache/transaction.h"
#include "batch.h"

static struct
{
	volatile sig_atomic_t active;
	MemoryContext outside;		/* the caller's, to go back to */
}			transaction;

void
sm_cache_handle_sigterm(SIGNAL_ARGS)
{
	if (transaction.active)
		die(postgres_signal_arg);
	else
		SignalHandlerForShutdownRequest(postgres_signal_arg);
}

/*
 * NULL, with no transaction open, if the extension is not there.
 */
const SmSchema *
sm_cache_start_transaction(const char *activity)
{
	const SmSchema *schema;

	transaction.outside = CurrentMemoryContext;
	transaction.active = true;
	schema = sm_batch_begin(activity);
	if (schema == NULL)
	{
		MemoryContextSwitchTo(transaction.outside);
		transaction.active = false;
		pgstat_report_activity(STATE_IDLE, NULL);
	}
	return schema;
}

void
sm_cache_end_transaction(void)
{
	sm_batch_end();
	MemoryContextSwitchTo(transaction.outside);
	transaction.active = false;
	pgstat_report_activity(STATE_IDLE, NULL);
}
