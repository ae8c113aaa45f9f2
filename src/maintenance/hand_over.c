/*-------------------------------------------------------------------------
 *
 * hand_over.c
 *	  Lets another server take over the sessions that this one gives away.
 *
 * Once session_manager.shard has become smaller, every new command refuses
 * the sessions that are outside of it.  What remains to be waited for, in this
 * order:
 *
 *	1.	Processes that have not read the setting yet.  A process reads it
 *		between two commands, after a signal of the postmaster.  Each absorbs
 *		a barrier, whose signal comes after that one: then either it is between
 *		two commands, and reads the setting before the next, or it shows as
 *		active.
 *	2.	Commands that were active then.  They may have any number of
 *		transactions, as a procedure does, all under the old setting.
 *	3.	Transactions that have written to the tables, prepared ones too.
 *	4.	What shared memory holds of sessions that are given away: findings and
 *		times of use, which a worker writes.
 *
 * Then the epoch of the cache ends with this transaction, so that no reader
 * serves from it what the other server may end.
 *
 * All waits obey statement_timeout, and none of them blocks anybody.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "storage/latch.h"
#include "storage/procsignal.h"
#include "utils/acl.h"
#include "utils/wait_event.h"

#include "cache/writer.h"
#include "compat.h"
#include "guc.h"
#include "keys/token.h"
#include "maintenance/hand_over.h"
#include "session/finding.h"
#include "session/touch.h"
#include "shared.h"
#include "spi.h"

#define WAIT_MS		5

/*
 * Active commands of this database, each named so that a later one differs.  Of
 * a process with track_activities off nobody can tell, before it ends.
 */
#define COMMANDS \
	"SELECT pg_catalog.concat_ws(' ', pid, query_start) AS name FROM pg_catalog.pg_stat_activity" \
	" WHERE datid = %u AND pid <> pg_catalog.pg_backend_pid()" \
	" AND state IN ('active', 'fastpath function call', 'disabled')" \
	" AND backend_type NOT LIKE 'session\\_manager %%'" \
	" AND backend_type NOT IN ('autovacuum worker', 'walsender', 'parallel worker')"

/* Transactions that have written to the two tables. */
#define WRITERS \
	"SELECT virtualtransaction AS name FROM pg_catalog.pg_locks" \
	" WHERE locktype = 'relation' AND database = %u AND relation IN (%u, %u)" \
	" AND mode = 'RowExclusiveLock' AND granted" \
	" AND pid IS DISTINCT FROM pg_catalog.pg_backend_pid()"

static void wait_for_those_of(const char *query);
static void wait_for_worker(void);
static bool is_outside(const pg_uuid_t *session_id);
static void wait_a_moment(void);

/*
 * Wait until nothing is under way any more for sessions that are outside of
 * session_manager.shard, and end the cache's epoch with this transaction.
 */
void
sm_hand_over(const SmSchema *schema)
{
	/* others' commands would not be seen */
	if (!has_privs_of_role(GetUserId(), ROLE_PG_READ_ALL_STATS))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to see the commands of other roles"),
				 errhint("Call session_hand_over() as a superuser or a member of pg_read_all_stats.")));

	WaitForProcSignalBarrier(EmitProcSignalBarrier(PROCSIGNAL_BARRIER_SMGRRELEASE));
	sm_spi_connect();
	wait_for_those_of(psprintf(COMMANDS, MyDatabaseId));
	wait_for_those_of(psprintf(WRITERS, MyDatabaseId, schema->sessions, schema->events));
	sm_spi_finish();
	wait_for_worker();
	sm_cache_everything_changed(schema);
}

/*
 * Wait until none of what the query finds now is there any more.
 */
static void
wait_for_those_of(const char *query)
{
	Oid			type = TEXTARRAYOID;
	char	   *remaining = psprintf("SELECT pg_catalog.array_agg(name) FROM (%s) AS q"
									 " WHERE name = ANY ($1) HAVING pg_catalog.count(*) > 0", query);
	Datum		names;
	bool		isnull;

	(void) sm_spi_execute(psprintf("SELECT COALESCE(pg_catalog.array_agg(name), '{}') FROM (%s) AS q", query));
	names = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	for (;;)
	{
		/* what is seen of other processes stays the same in a transaction */
		(void) sm_spi_execute("SELECT pg_catalog.pg_stat_clear_snapshot()");
		if (sm_spi_execute_with(remaining, 1, &type, &names, InvalidSnapshot) == 0)
			return;
		names = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
		wait_a_moment();
	}
}

/*
 * Wait until a worker has written what shared memory holds of sessions that
 * are outside of the share.
 */
static void
wait_for_worker(void)
{
	if (sm_database == NULL)
		return;
	while (sm_finding_waits(MyDatabaseId, is_outside) ||
		   sm_touch_waits(MyDatabaseId, is_outside))
	{
		if (!sm_worker_comes())
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("no worker writes what shared memory holds of this database"),
					 errhint("See \"workers\" in session_info().")));
		sm_shared_hurry();
		wait_a_moment();
	}
}

static bool
is_outside(const pg_uuid_t *session_id)
{
	return !sm_holds_bucket(sm_id_bucket(session_id->data));
}

static void
wait_a_moment(void)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 WAIT_MS, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}
