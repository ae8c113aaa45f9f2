/*-------------------------------------------------------------------------
 *
 * partition.c
 *	  Partitions of session_events: makes those for this period and the next,
 *	  empties the default partition into them, drops those past retention.
 *
 * Runs as the extension's owner, in a function with its own search_path.
 *
 * Attaching a partition needs ACCESS EXCLUSIVE on the default partition, and
 * dropping one on the parent, both until the transaction ends.  Every login
 * writes an event, so each step waits for its locks a moment only and gives
 * way, to be tried again by the next maintenance.  The new locks are taken
 * last in the transaction of session_cleanup for the same reason.
 *
 * Periods are counted in UTC.  A partition never overlaps an existing one,
 * whatever session_manager.event_partition was when that was made: it is cut
 * to the gap that it fills.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "access/xact.h"
#include "executor/spi.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/timestamp.h"

#include "events.h"
#include "guc.h"
#include "partition.h"

/* How long a step may hold logins up while it waits for its locks. */
#define LOCK_TIMEOUT	"200ms"

typedef struct Gap
{
	TimestampTz from;
	TimestampTz until;
} Gap;

typedef void (*Step) (const SmSchema *schema, void *arg, SmPartitionWork *work);

static bool run_step(const SmSchema *schema, Step step, void *arg,
					 const char *what, SmPartitionWork *work);
static bool find_gap(const SmSchema *schema, TimestampTz at, Gap *gap,
					 TimestampTz *covered_until);
static void fill_gap(const SmSchema *schema, void *arg, SmPartitionWork *work);
static void drop_partition(const SmSchema *schema, void *arg,
						   SmPartitionWork *work);
static void prune_default(const SmSchema *schema, void *arg,
						  SmPartitionWork *work);
static void revoke_defaults(const SmSchema *schema, const char *relname);
static bool default_oldest(const SmSchema *schema, TimestampTz *at);
static List *partitions_until(const SmSchema *schema, TimestampTz cutoff);
static void period_around(TimestampTz at, Gap *period);
static char *utc_literal(TimestampTz at);
static void execute(const char *sql);

/*
 * Do what is due.  SPI must be connected.
 */
void
sm_partitions_maintain(const SmSchema *schema, SmPartitionWork *work)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz at = now;
	Gap			gap;

	memset(work, 0, sizeof(*work));

	/* an old snapshot does not see all that has to be moved */
	if (IsolationUsesXactSnapshot())
	{
		ereport(NOTICE,
				(errmsg("partitions of session_events are left as they are"),
				 errhint("Call session_cleanup() at isolation level READ COMMITTED.")));
		return;
	}

	/* two who make the same partition would trip over each other */
	if (!sm_lock_maintenance())
		return;

	/* this period and the next */
	for (int i = 0; i < 2; i++)
	{
		TimestampTz covered_until;

		if (find_gap(schema, at, &gap, &covered_until) &&
			!run_step(schema, fill_gap, &gap, "make a partition of session_events", work))
			break;
		at = covered_until;
	}

	if (sm_event_retention > 0)
	{
		TimestampTz cutoff = now - (int64) sm_event_retention * USECS_PER_SEC;
		ListCell   *lc;

		foreach(lc, partitions_until(schema, cutoff))
		{
			Oid			relid = lfirst_oid(lc);

			if (!run_step(schema, drop_partition, &relid,
						  "drop a partition of session_events", work))
				break;
		}
		(void) run_step(schema, prune_default, &cutoff,
						"delete old events from the default partition", work);
	}

	/* events of periods that passed without maintenance */
	while (default_oldest(schema, &at))
	{
		TimestampTz covered_until;

		if (!find_gap(schema, at, &gap, &covered_until) ||
			!run_step(schema, fill_gap, &gap, "make a partition of session_events", work))
			break;
	}
}

/* The time of the oldest event in the default partition; false if empty. */
static bool
default_oldest(const SmSchema *schema, TimestampTz *at)
{
	bool		isnull;

	execute(psprintf("SELECT pg_catalog.min(at) FROM %s",
					 sm_schema_qualify(schema, "session_events_default")));
	*at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &isnull));
	return !isnull;
}

/*
 * Run a step in a subtransaction with a short lock_timeout.  False if it had
 * to give way to traffic.
 */
static bool
run_step(const SmSchema *schema, Step step, void *arg, const char *what,
		 SmPartitionWork *work)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	SmPartitionWork before = *work;
	volatile bool done = true;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		int			nest_level = NewGUCNestLevel();

		(void) set_config_option("lock_timeout", LOCK_TIMEOUT,
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		/* not where the caller, who need not be the owner, would have it */
		(void) set_config_option("default_tablespace", "",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		(void) set_config_option("default_table_access_method", "heap",
								 PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
		step(schema, arg, work);
		AtEOXact_GUC(true, nest_level);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (error->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE &&
			error->sqlerrcode != ERRCODE_T_R_DEADLOCK_DETECTED)
			ReThrowError(error);
		*work = before;
		done = false;
		ereport(NOTICE,
				(errmsg("gave way to traffic: could not %s", what),
				 errhint("The next session_cleanup() tries again.")));
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return done;
}

/*
 * Does only the default partition take events of a time?  Then what is
 * missing around it; in every case how far the partition there reaches, or
 * will once the gap is filled.
 */
static bool
find_gap(const SmSchema *schema, TimestampTz at, Gap *gap,
		 TimestampTz *covered_until)
{
	Relation	parent = table_open(schema->events, AccessShareLock);
	TimestampTz from;
	TimestampTz until;
	Oid			relid = sm_events_route(parent, at, &from, &until);

	table_close(parent, AccessShareLock);
	*covered_until = until;
	if (relid != schema->events_default)
		return false;

	period_around(at, gap);
	gap->from = Max(gap->from, from);
	gap->until = Min(gap->until, until);
	*covered_until = gap->until;
	return true;
}

/* Make the partition for a gap and move the default partition's events. */
static void
fill_gap(const SmSchema *schema, void *arg, SmPartitionWork *work)
{
	const Gap  *gap = arg;
	char	   *from = utc_literal(gap->from);
	char	   *until = utc_literal(gap->until);
	char	   *parent = sm_schema_qualify(schema, "session_events");
	char	   *fallback = sm_schema_qualify(schema, "session_events_default");
	char	   *relname = psprintf("session_events_%.4s%.2s%.2s",
								   from, from + 5, from + 8);
	char	   *partition;

	/* two partitions may begin on one day, after a change of the setting */
	for (int i = 2; OidIsValid(get_relname_relid(relname, schema->namespace)); i++)
		relname = psprintf("session_events_%.4s%.2s%.2s_%d",
						   from, from + 5, from + 8, i);
	partition = sm_schema_qualify(schema, relname);

	execute(psprintf("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE", fallback));
	execute(psprintf("CREATE TABLE %s (LIKE %s)", partition, parent));
	execute(psprintf("REVOKE ALL ON TABLE %s FROM PUBLIC", partition));
	revoke_defaults(schema, relname);
	execute(psprintf("WITH moved AS (DELETE FROM %s WHERE at >= '%s' AND at < '%s' RETURNING *)"
					 " INSERT INTO %s SELECT * FROM moved",
					 fallback, from, until, partition));
	/* names of PostgreSQL's choice, as somebody may have taken ours */
	execute(psprintf("ALTER TABLE %s ADD PRIMARY KEY (event_id)", partition));
	execute(psprintf("CREATE INDEX ON %s (at)", partition));
	execute(psprintf("CREATE INDEX ON %s (user_id, at)", partition));
	execute(psprintf("CREATE INDEX ON %s (session_id, at)", partition));
	execute(psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
					 parent, partition, from, until));
	work->created++;
}

/* Drop a partition, counting its events. */
static void
drop_partition(const SmSchema *schema, void *arg, SmPartitionWork *work)
{
	Oid			relid = *(Oid *) arg;
	char	   *partition = quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													  get_rel_name(relid));
	bool		isnull;

	execute(psprintf("SELECT pg_catalog.count(*) FROM %s", partition));
	work->events_dropped += DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
														SPI_tuptable->tupdesc,
														1, &isnull));
	/* counted first: nobody logs in while the parent is locked */
	execute(psprintf("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE",
					 sm_schema_qualify(schema, "session_events")));
	execute(psprintf("DROP TABLE %s", partition));
	work->dropped++;
}

/* Old events for which there never was a partition. */
static void
prune_default(const SmSchema *schema, void *arg, SmPartitionWork *work)
{
	execute(psprintf("DELETE FROM %s WHERE at < '%s'",
					 sm_schema_qualify(schema, "session_events_default"),
					 utc_literal(*(TimestampTz *) arg)));
	work->events_dropped += SPI_processed;
}

/* Take back what ALTER DEFAULT PRIVILEGES may have granted on a new table. */
static void
revoke_defaults(const SmSchema *schema, const char *relname)
{
	Oid			relid = get_relname_relid(relname, schema->namespace);
	char	   *revokes;

	execute(psprintf("SELECT pg_catalog.string_agg(pg_catalog.format('REVOKE ALL ON TABLE %%s FROM %%s', c.oid::pg_catalog.regclass,"
					 " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END), '; ')"
					 " FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a"
					 " WHERE c.oid = %u AND a.grantee <> c.relowner", relid));
	revokes = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (revokes != NULL)
		execute(revokes);
}

/* The partitions that hold nothing younger than a moment. */
static List *
partitions_until(const SmSchema *schema, TimestampTz cutoff)
{
	Relation	parent = table_open(schema->events, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	List	   *result = NIL;

	/* indexes[i] is the partition that ends at datums[i] */
	for (int i = 0; bounds != NULL && i < bounds->ndatums; i++)
		if (bounds->indexes[i] >= 0 &&
			bounds->kind[i][0] == PARTITION_RANGE_DATUM_VALUE &&
			DatumGetTimestampTz(bounds->datums[i][0]) <= cutoff)
			result = lappend_oid(result, desc->oids[bounds->indexes[i]]);
	table_close(parent, AccessShareLock);
	return result;
}

/* The day, ISO week or month, in UTC, around a moment. */
static void
period_around(TimestampTz at, Gap *period)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		day = at / USECS_PER_DAY - (at % USECS_PER_DAY < 0);
	int			month;

	switch ((SmPartitionWidth) sm_event_partition)
	{
		case SM_PARTITION_DAY:
			period->from = day * USECS_PER_DAY;
			period->until = period->from + USECS_PER_DAY;
			return;
		case SM_PARTITION_WEEK:
			/* the epoch, 2000-01-01, was a Saturday */
			day -= ((day + 5) % 7 + 7) % 7;
			period->from = day * USECS_PER_DAY;
			period->until = period->from + 7 * USECS_PER_DAY;
			return;
		case SM_PARTITION_MONTH:
			if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
				elog(ERROR, "timestamp out of range");
			month = tm.tm_year * 12 + tm.tm_mon - 1;
			period->from = (int64) (date2j(month / 12, month % 12 + 1, 1) -
									POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
			month++;
			period->until = (int64) (date2j(month / 12, month % 12 + 1, 1) -
									 POSTGRES_EPOCH_JDATE) * USECS_PER_DAY;
			return;
	}
}

/* A time as a literal that no DateStyle or TimeZone reads otherwise. */
static char *
utc_literal(TimestampTz at)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(at, NULL, &tm, &fsec, NULL, NULL) != 0)
		elog(ERROR, "timestamp out of range");
	return psprintf("%04d-%02d-%02d %02d:%02d:%02d.%06d+00",
					tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

static void
execute(const char *sql)
{
	int			rc = SPI_execute(sql, false, 0);

	if (rc < 0)
		elog(ERROR, "could not maintain session_events: %s",
			 SPI_result_code_string(rc));
}
