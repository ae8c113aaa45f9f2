/*-------------------------------------------------------------------------
 *
 * restore.c
 *	  Is a dump being restored into this database?
 *
 * A restore makes the extension early, and the partitions, rows and indexes
 * that belong to it one after another, for hours if the database is large.  A
 * worker that made or dropped partitions meanwhile, or wrote events, would be
 * in its way: partitions have the names that the dump's have, events numbers
 * that the dump's have.
 *
 * Before the first key is added there is nothing for a worker to do.  In a
 * restore the row of session_installation, which the first key makes, comes
 * with the data, when the dump's partitions exist; the event ids go on from
 * where they were only when all data is in.  Until both are there a worker
 * stays out.  Then the dump's partitions may still be without their indexes,
 * or pg_restore, with several jobs, not done with their rows.
 *
 * Those last two signs need not be of a restore.  So they only count until a
 * database has once been without them, and for SETTLE_US at the most.  A
 * database is known by its session_events: pg_restore --clean makes another
 * one, and nobody need have looked while it was empty.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "maintenance/partition.h"
#include "maintenance/restore.h"
#include "shared.h"

#define SETTLE_US	(12 * USECS_PER_HOUR)

static SmSharedPart part = {
	.name = "session_manager_restore",
	.per_database = sizeof(SmRestoreState)
};

static const char *wait_for(const SmSchema *schema);

/*
 * Have what is known of each database kept.  Called once, from _PG_init.
 */
void
sm_restore_init(void)
{
	sm_shared_register(&part);
}

SmRestoreState *
sm_restore_state(const SmDatabase *database)
{
	return sm_shared_of(&part, database);
}

/*
 * May the pass do more than write findings and touches?  Not while a dump is
 * being restored: records what it waits for.
 */
void
sm_restore_pass(SmPass *pass)
{
	const SmSchema *schema = sm_pass_batch(pass, "looking for a restore");
	SmRestoreState *state = sm_restore_state(sm_database);
	const char *pending;

	if (schema == NULL)
		return;
	pending = wait_for(schema);
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	strlcpy(state->waits_for, pending != NULL ? pending : "",
			sizeof(state->waits_for));
	LWLockRelease(sm_shared->lock);
	pass->may_maintain = (pending == NULL);
	pass->maintained = schema->events;
	sm_batch_end();
	if (pass->may_maintain)
		sm_count(SM_SWEEPS);
}

/*
 * What a worker must wait for before it does anything by itself, as a
 * sentence for session_info(), or NULL. SPI must be connected.
 */
static const char *
wait_for(const SmSchema *schema)
{
	SmRestoreState *state = sm_restore_state(sm_database);
	HeapTuple	row;
	TupleDesc	desc;
	char	   *unfinished;
	bool		used;
	bool		restorer;
	bool		isnull;

	if (SPI_execute(psprintf("SELECT (SELECT is_called FROM %s) AND EXISTS (SELECT FROM %s),"
							 " (SELECT c.relname FROM pg_catalog.pg_inherits i"
							 " JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"
							 " WHERE i.inhparent = %u AND c.relnamespace = %u"
							 " AND c.relname ~ '^session_events_[0-9]{8}'"
							 " AND (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x"
							 " WHERE x.indrelid = c.oid AND x.indisvalid) < %d LIMIT 1),"
							 " EXISTS (SELECT FROM pg_catalog.pg_stat_activity"
							 " WHERE datid = %u AND application_name = 'pg_restore')",
							 sm_schema_qualify(schema, "session_events_event_id_seq"),
							 sm_schema_qualify(schema, "session_installation"),
							 schema->events, schema->namespace,
							 SM_PARTITION_INDEXES, MyDatabaseId),
					true, 1) != SPI_OK_SELECT || SPI_processed != 1)
		elog(ERROR, "could not look for a restore");
	row = SPI_tuptable->vals[0];
	desc = SPI_tuptable->tupdesc;
	used = DatumGetBool(SPI_getbinval(row, desc, 1, &isnull));
	unfinished = SPI_getvalue(row, desc, 2);
	restorer = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));

	if (!used)
	{
		state->settled = state->seen = InvalidOid;
		return "maintenance waits for the first key, or the data of a restore";
	}
	if (state->settled == schema->events)
		return NULL;
	if (state->seen != schema->events)
	{
		state->seen = schema->events;
		state->seen_at = sm_clock();
	}
	if (sm_clock() - state->seen_at < SETTLE_US)
	{
		if (unfinished != NULL)
			return psprintf("maintenance waits for the indexes of partition \"%s\", as in a restore", unfinished);
		if (restorer)
			return "maintenance waits for the end of pg_restore";
	}
	state->settled = schema->events;
	return NULL;
}
