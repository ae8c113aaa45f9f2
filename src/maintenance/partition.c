/*-------------------------------------------------------------------------
 *
 * partition.c
 *	  Partitions of session_events: makes those for this period and the next,
 *	  empties the default partition into them, drops those past retention.
 *
 * Runs as the extension's owner, in a function with its own search_path.
 *
 * Every login writes an event, so nothing here may keep the parent or the
 * default partition locked for longer than moments, however many events are
 * in them:
 *
 * - A step moves a bounded number of events.  They are deleted from the
 *	 default partition and inserted into another table first, which excludes
 *	 nobody.  Only then the step takes its ACCESS EXCLUSIVE locks, waiting for
 *	 them a moment at the most, looks for what came in meanwhile, and attaches
 *	 the table.  All of it is one transaction, so that every event is seen once
 *	 at every time, by old snapshots too.  (Not by a query that bounds the time
 *	 from above and has a snapshot from before the move: for that the planner
 *	 passes the default partition over.  session_history sets no such bound.)
 * - The parent is locked, although ATTACH PARTITION could do without: a query
 *	 that had read the list of partitions before and its snapshot after would
 *	 not find what was moved.
 * - A period with more events than a step may move is moved in slices, oldest
 *	 first.  Its partition grows with each: it is detached and attached again
 *	 with a later bound.  For events to come a partition is attached at once,
 *	 which begins after the last event in the default partition.
 * - ATTACH PARTITION would read the table and the default partition from end
 *	 to end.  It does not where a CHECK constraint says that there is nothing
 *	 to be found, and an index tells us that this is so, see
 *	 add_proven_check().
 *
 * Periods are counted in UTC.  A partition never overlaps an existing one,
 * whatever session_manager.event_partition was when that was made: it is cut
 * to the gap that it fills.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/tupconvert.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/indexing.h"
#include "catalog/pg_class.h"
#include "catalog/pg_constraint.h"
#include "executor/executor.h"
#include "miscadmin.h"
#include "partitioning/partbounds.h"
#include "partitioning/partdesc.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

#include "batch.h"
#include "compat.h"
#include "guc.h"
#include "maintenance/contain.h"
#include "maintenance/partition.h"
#include "session/events.h"
#include "session/locks.h"
#include "session/writer.h"
#include "spi.h"

/* How long a step may hold logins up while it waits for its locks. */
#define LOCK_TIMEOUT	"100ms"

/*
 * How many events a step deletes or moves, and how many partitions it makes
 * or drops.  Looking for late events costs a microsecond for each event moved,
 * under the lock.
 */
#define STEP_EVENTS		10000
#define STEP_PARTITIONS	8

/* Locks for less than this are not worth it. */
#define LEAST_EVENTS	100

/* The constraint that spares ATTACH PARTITION the reading. */
#define PROVEN_CHECK	"session_events_proven"

/*
 * Years that fit into the name of a partition: 0001 to 9998, from 2000-01-01.
 */
#define EARLIEST		(-INT64CONST(730119) * USECS_PER_DAY)
#define LATEST			(INT64CONST(2921574) * USECS_PER_DAY)

/* A span of time, and the partition that takes its events. */
typedef struct Range
{
	TimestampTz from;
	TimestampTz until;
	Oid			relid;			/* InvalidOid: only the default partition */
} Range;

/* A table that will be attached for a range. */
typedef struct Piece
{
	Range		range;			/* relid: the partition that grows, if any */
	TimestampTz begin;			/* of what is moved in this step */
	bool		after_last;		/* begins after the last event, moves none */
	char	   *name;
} Piece;

/* What a step has to do. */
typedef struct StepPlan
{
	List	   *pieces;
	List	   *past;			/* OIDs of partitions past retention */
	int64		budget;			/* of events, what is left of it */
	bool		more;			/* than that */
} StepPlan;

typedef void (*Part) (const SmSchema *schema, StepPlan *plan,
					  SmPartitionWork *work);

/* A part and what it is called with. */
typedef struct PartCall
{
	Part		part;
	const SmSchema *schema;
	StepPlan   *plan;
	SmPartitionWork *work;
	MemoryContext context;		/* in which plans are made */
} PartCall;

static bool run_part(Part part, const SmSchema *schema, StepPlan *plan,
					 SmPartitionWork *work, ErrorData **error);
static void call_part(void *arg);
static bool carry_out_singly(const SmSchema *schema, StepPlan *plan,
							 SmPartitionWork *work);
static bool is_stuck(const SmPartitionWork *work, Oid relid);
static void prepare(const SmSchema *schema, StepPlan *plan,
					SmPartitionWork *work);
static void carry_out(const SmSchema *schema, StepPlan *plan,
					  SmPartitionWork *work);
static void plan_ahead(const SmSchema *schema, List *ranges, TimestampTz now,
					   StepPlan *plan);
static List *copy_pieces(List *pieces);
static void plan_drops(List *ranges, TimestampTz cutoff,
					   const SmPartitionWork *work, StepPlan *plan);
static void plan_backlog(const SmSchema *schema, List *ranges,
						 StepPlan *plan);
static bool may_grow(const SmSchema *schema, const StepPlan *plan,
					 const Range *range);
static bool is_planned(const StepPlan *plan, const Range *range);
static void make_table(const SmSchema *schema, Piece *piece);
static void attach(const SmSchema *schema, const StepPlan *plan, Piece *piece);
static int64 move_events(const SmSchema *schema, const Piece *piece);
static void check_moved(const SmSchema *schema, const Range *range);
static void add_proven_check(const char *table, Oid relid, const char *check);
static void prune_default(const SmSchema *schema, TimestampTz cutoff,
						  StepPlan *plan, SmPartitionWork *work);
static List *list_ranges(const SmSchema *schema);
static int64 count_events(const SmSchema *schema, TimestampTz from,
						  TimestampTz until, int64 limit);
static bool event_time(const SmSchema *schema, const char *order,
					   TimestampTz from, TimestampTz until, int64 offset,
					   TimestampTz *at);
static void revoke_defaults(const SmSchema *schema, const char *relname);
static void period_around(TimestampTz at, Range *period);
static char *utc_literal(TimestampTz at);
static void set_local(const char *name, const char *value);

/*
 * Maintain the partitions of this database, a transaction for each step.
 */
void
sm_partitions_pass(SmPass *pass)
{
	SmPartitionWork work = {0};
	bool		more;

	do
	{
		const SmSchema *schema = sm_pass_batch(pass, "maintaining partitions of session_events");

		if (schema == NULL)
			return;
		/* a crash may undo a step, which is then done again */
		(void) set_config_option("synchronous_commit", "off", PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0, false);
		more = sm_partitions_step(schema, PG_INT64_MAX, &work);
		sm_batch_end();
	} while (more && !sm_pass_is_over(pass));
}

/*
 * Take a step: drop, delete and move a bounded amount, of max_events events at
 * the most.  Adds to *work, which the caller has set to zero before the first
 * step of a series.  True if another step, in another transaction, finds more
 * to do.  SPI must be connected.
 */
bool
sm_partitions_step(const SmSchema *schema, int64 max_events,
				   SmPartitionWork *work)
{
	StepPlan	plan = {
		.budget = Max(LEAST_EVENTS, Min(max_events, STEP_EVENTS))
	};
	ErrorData  *error;
	bool		done;
	int			nest_level;

	/* an old snapshot does not see all that has to be moved */
	if (IsolationUsesXactSnapshot())
	{
		ereport(NOTICE,
				(errmsg("partitions of session_events were not maintained"),
				 errhint("Call session_cleanup() at isolation level READ COMMITTED.")));
		return false;
	}

	/* two who make the same partition would trip over each other */
	if (!sm_lock_maintenance())
		return false;

	nest_level = NewGUCNestLevel();
	set_local("lock_timeout", LOCK_TIMEOUT);
	/* not where the caller, who need not be the owner, would have it */
	set_local("default_tablespace", "");
	set_local("default_table_access_method", "heap");
	/* an error, rather than a policy that hides events from a move */
	set_local("row_security", "off");

	/*
	 * there may be no statistics yet: always by the index that leads with
	 * time
	 */
	set_local("enable_seqscan", "off");
	set_local("enable_bitmapscan", "off");
	set_local("enable_sort", "off");
	done = run_part(prepare, schema, &plan, work, &error);
	if (error != NULL)
		sm_failed(SM_STEP_PARTITIONS, "session_manager could not maintain the partitions of session_events",
				  error);
	if (done && (plan.pieces != NIL || plan.past != NIL))
	{
		StepPlan	all = plan;

		/* carrying it out changes the pieces */
		all.pieces = copy_pieces(plan.pieces);
		done = run_part(carry_out, schema, &all, work, &error);
		if (error != NULL)
		{
			FreeErrorData(error);
			done = carry_out_singly(schema, &plan, work);
		}
	}
	AtEOXact_GUC(true, nest_level);
	return done && plan.more;
}

/*
 * Run a part of a step in a subtransaction.  False if it failed: with *error,
 * or without one if it had to give way to traffic.
 */
static bool
run_part(Part part, const SmSchema *schema, StepPlan *plan,
		 SmPartitionWork *work, ErrorData **error)
{
	PartCall	call = {part, schema, plan, work, CurrentMemoryContext};
	SmPartitionWork before = *work;

	*error = sm_try(call_part, &call);
	if (*error == NULL)
		return true;
	*work = before;
	if ((*error)->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE ||
		(*error)->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED)
	{
		FreeErrorData(*error);
		*error = NULL;
		ereport(NOTICE,
				(errmsg("could not change the partitions of session_events because of concurrent traffic"),
				 errhint("The next call of session_cleanup() will try again.")));
	}
	return false;
}

static void
call_part(void *arg)
{
	PartCall   *call = arg;

	MemoryContextSwitchTo(call->context);
	call->part(call->schema, call->plan, call->work);
}

/*
 * A plan could not be carried out as a whole: try each thing in it by itself,
 * and pass over what cannot be done.  True unless it had to give way.
 */
static bool
carry_out_singly(const SmSchema *schema, StepPlan *plan, SmPartitionWork *work)
{
	ListCell   *lc;
	ErrorData  *error;

	foreach(lc, plan->pieces)
	{
		Piece	   *piece = lfirst(lc);
		StepPlan	one = {.pieces = list_make1(piece)};
		bool		is_new = !OidIsValid(piece->range.relid);

		if (run_part(carry_out, schema, &one, work, &error))
			continue;
		if (error == NULL)
			return false;
		/* another step would only fail again */
		plan->more = false;
		sm_failed(SM_STEP_PARTITIONS, is_new ?
				  psprintf("session_manager could not create the partition of session_events for %s",
						   utc_literal(piece->range.from)) :
				  psprintf("session_manager could not move events into partition \"%s\"",
						   get_rel_name(piece->range.relid)), error);
	}
	foreach(lc, plan->past)
	{
		StepPlan	one = {.past = list_make1_oid(lfirst_oid(lc))};

		if (run_part(carry_out, schema, &one, work, &error))
			continue;
		if (error == NULL)
			return false;
		if (work->n_stuck < (int) lengthof(work->stuck))
			work->stuck[work->n_stuck++] = lfirst_oid(lc);
		else
			plan->more = false;
		sm_failed(SM_STEP_PARTITIONS,
				  psprintf("session_manager could not drop partition \"%s\"", get_rel_name(lfirst_oid(lc))),
				  error);
	}
	return true;
}

/* Look what there is to do, and delete what only has to be deleted. */
static void
prepare(const SmSchema *schema, StepPlan *plan, SmPartitionWork *work)
{
	TimestampTz now = GetCurrentTimestamp();
	List	   *ranges = list_ranges(schema);

	plan_ahead(schema, ranges, now, plan);
	if (sm_event_retention > 0 && !sm_clock_in_doubt())
	{
		TimestampTz cutoff = now - (int64) sm_event_retention * USECS_PER_SEC;

		plan_drops(ranges, cutoff, work, plan);
		prune_default(schema, cutoff, plan, work);
	}
	/* events of periods that passed without maintenance */
	plan_backlog(schema, ranges, plan);
}

static void
carry_out(const SmSchema *schema, StepPlan *plan, SmPartitionWork *work)
{
	ListCell   *lc;

	/* what takes time */
	foreach(lc, plan->pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (OidIsValid(piece->range.relid))
			piece->name = quote_qualified_identifier(get_namespace_name(get_rel_namespace(piece->range.relid)),
													 get_rel_name(piece->range.relid));
		else
		{
			make_table(schema, piece);
			work->created++;
		}
		if (!piece->after_last)
			work->events_moved += move_events(schema, piece);
	}
	/* the commit, which comes under the locks, is to have little to flush */
	XLogFlush(XactLastRecEnd);

	(void) sm_spi_execute(psprintf("LOCK TABLE ONLY %s IN ACCESS EXCLUSIVE MODE",
								   sm_schema_qualify(schema, "session_events")));
	if (plan->pieces != NIL)
		(void) sm_spi_execute(psprintf("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE",
									   sm_schema_qualify(schema, "session_events_default")));
	foreach(lc, plan->pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (!piece->after_last)
			work->events_moved += move_events(schema, piece);
		attach(schema, plan, piece);
	}
	foreach(lc, plan->past)
	{
		Oid			relid = lfirst_oid(lc);

		(void) sm_spi_execute(psprintf("DROP TABLE %s",
									   quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
																  get_rel_name(relid))));
		work->dropped++;
	}
}

/* The partitions of this period and the next, as far as they are missing. */
static void
plan_ahead(const SmSchema *schema, List *ranges, TimestampTz now,
		   StepPlan *plan)
{
	TimestampTz at = now;

	for (int i = 0; i < 2; i++)
	{
		Range	   *range = NULL;
		Piece	   *piece;
		ListCell   *lc;
		int64		n;

		foreach(lc, ranges)
		{
			range = lfirst(lc);
			if (at < range->until)
				break;
		}
		if (OidIsValid(range->relid))
		{
			at = range->until;
			continue;
		}
		piece = palloc0(sizeof(Piece));
		period_around(at, &piece->range);
		piece->range.from = Max(piece->range.from, range->from);
		piece->range.until = Min(piece->range.until, range->until);
		piece->begin = piece->range.from;
		at = piece->range.until;

		n = count_events(schema, piece->range.from, piece->range.until, plan->budget + 1);
		if (n > plan->budget)
			piece->after_last = true;
		else
			plan->budget -= n;
		plan->pieces = lappend(plan->pieces, piece);
	}
}

/* The partitions that hold nothing younger than a moment. */
static void
plan_drops(List *ranges, TimestampTz cutoff, const SmPartitionWork *work,
		   StepPlan *plan)
{
	ListCell   *lc;

	foreach(lc, ranges)
	{
		Range	   *range = lfirst(lc);

		if (!OidIsValid(range->relid) || range->until > cutoff ||
			is_stuck(work, range->relid))
			continue;
		if (list_length(plan->past) == STEP_PARTITIONS)
		{
			plan->more = true;
			break;
		}
		plan->past = lappend_oid(plan->past, range->relid);
	}
}

/* Could it not be dropped in an earlier step? */
static bool
is_stuck(const SmPartitionWork *work, Oid relid)
{
	for (int i = 0; i < work->n_stuck; i++)
		if (work->stuck[i] == relid)
			return true;
	return false;
}

static List *
copy_pieces(List *pieces)
{
	List	   *copies = NIL;
	ListCell   *lc;

	foreach(lc, pieces)
	{
		Piece	   *copy = palloc(sizeof(Piece));

		*copy = *(Piece *) lfirst(lc);
		copies = lappend(copies, copy);
	}
	return copies;
}

/*
 * What the default partition holds of other periods, as far as the budget
 * goes, oldest first.
 */
static void
plan_backlog(const SmSchema *schema, List *ranges, StepPlan *plan)
{
	Range	   *before = NULL;
	ListCell   *lc;

	foreach(lc, ranges)
	{
		Range	   *gap = lfirst(lc);
		TimestampTz from = Max(gap->from, EARLIEST);
		TimestampTz until = Min(gap->until, LATEST);
		TimestampTz at;

		/* what is behind a partition's bound has been moved: start at that */
		while (!OidIsValid(gap->relid) &&
			   event_time(schema, "ASC", from, until, 0, &at))
		{
			Piece	   *piece;
			Range		period;
			Range		span;
			TimestampTz next;

			CHECK_FOR_INTERRUPTS();
			period_around(at, &period);
			span = period;
			span.from = Max(span.from, from);
			span.until = Min(span.until, until);
			if (is_planned(plan, &span))
			{
				from = span.until;
				continue;
			}
			if (plan->budget == 0 || list_length(plan->pieces) >= STEP_PARTITIONS)
			{
				plan->more = true;
				return;
			}
			if (event_time(schema, "ASC", span.from, span.until, plan->budget, &next))
			{
				/* so many events of one time cannot be told apart: they stay */
				if (next == at)
				{
					from = at + 1;
					continue;
				}
				span.until = next;
				plan->budget = 0;
			}
			else
				plan->budget -= count_events(schema, span.from, span.until, plan->budget);

			piece = palloc0(sizeof(Piece));
			piece->range = span;
			piece->begin = span.from;
			if (before != NULL && before->until == span.from &&
				before->from >= period.from && may_grow(schema, plan, before))
			{
				piece->range.from = before->from;
				piece->range.relid = before->relid;
			}
			plan->pieces = lappend(plan->pieces, piece);
			from = span.until;
		}
		before = OidIsValid(gap->relid) ? gap : NULL;
	}
}

/*
 * Is a partition one that we may detach and attach again?  Not if it is
 * about to be dropped, nor what somebody else has made, elsewhere.
 */
static bool
may_grow(const SmSchema *schema, const StepPlan *plan, const Range *range)
{
	char	   *relname = get_rel_name(range->relid);

	return !list_member_oid(plan->past, range->relid) &&
		get_rel_namespace(range->relid) == schema->namespace &&
		get_rel_relkind(range->relid) == RELKIND_RELATION &&
		relname != NULL && strncmp(relname, "session_events_", 15) == 0;
}

/* Does this step attach a table for a range anyway? */
static bool
is_planned(const StepPlan *plan, const Range *range)
{
	ListCell   *lc;

	foreach(lc, plan->pieces)
	{
		Piece	   *piece = lfirst(lc);

		if (!piece->after_last && piece->range.from <= range->from &&
			piece->range.until >= range->until)
			return true;
	}
	return false;
}

/* Make the table that becomes a partition. */
static void
make_table(const SmSchema *schema, Piece *piece)
{
	char	   *from = utc_literal(piece->range.from);
	char	   *relname = psprintf("session_events_%.4s%.2s%.2s",
								   from, from + 5, from + 8);

	/* two partitions may begin on one day */
	for (int i = 2; OidIsValid(get_relname_relid(relname, schema->namespace)); i++)
		relname = psprintf("session_events_%.4s%.2s%.2s_%d",
						   from, from + 5, from + 8, i);
	piece->name = sm_schema_qualify(schema, relname);

	/* with what the owner has added, without which it could not be attached */
	(void) sm_spi_execute(psprintf("CREATE TABLE %s (LIKE %s INCLUDING CONSTRAINTS INCLUDING GENERATED)",
								   piece->name, sm_schema_qualify(schema, "session_events")));
	(void) sm_spi_execute(psprintf("REVOKE ALL ON TABLE %s FROM PUBLIC", piece->name));
	revoke_defaults(schema, relname);
	/* names of PostgreSQL's choice, as somebody may have taken ours */
	(void) sm_spi_execute(psprintf("ALTER TABLE %s ADD PRIMARY KEY (at, event_id)", piece->name));
	(void) sm_spi_execute(psprintf("CREATE INDEX ON %s (user_id, at)", piece->name));
	(void) sm_spi_execute(psprintf("CREATE INDEX ON %s (session_id, at)", piece->name));
	piece->range.relid = get_relname_relid(relname, schema->namespace);
}

/*
 * Attach a table, or attach it again with a later bound.  Parent and default
 * partition are locked.
 */
static void
attach(const SmSchema *schema, const StepPlan *plan, Piece *piece)
{
	char	   *parent = sm_schema_qualify(schema, "session_events");
	char	   *fallback = sm_schema_qualify(schema, "session_events_default");
	char	   *from;
	char	   *until = utc_literal(piece->range.until);

	if (piece->after_last)
	{
		TimestampTz last;
		ListCell   *lc;

		if (event_time(schema, "DESC", piece->range.from, piece->range.until, 0, &last))
			piece->range.from = last + 1;
		foreach(lc, plan->pieces)
		{
			Piece	   *other = lfirst(lc);

			if (!other->after_last && other->range.until <= piece->range.until)
				piece->range.from = Max(piece->range.from, other->range.until);
		}
		/* an event in the period's last microsecond leaves nothing */
		if (piece->range.from >= piece->range.until)
		{
			(void) sm_spi_execute(psprintf("DROP TABLE %s", piece->name));
			return;
		}
	}
	from = utc_literal(piece->range.from);
	check_moved(schema, &piece->range);

	if (get_rel_relispartition(piece->range.relid))
		(void) sm_spi_execute(psprintf("ALTER TABLE %s DETACH PARTITION %s", parent, piece->name));
	add_proven_check(piece->name, piece->range.relid,
					 psprintf("at >= '%s' AND at < '%s'", from, until));
	add_proven_check(fallback, schema->events_default,
					 psprintf("at < '%s' OR at >= '%s'", from, until));
	(void) sm_spi_execute(psprintf("ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM ('%s') TO ('%s')",
								   parent, piece->name, from, until));
	(void) sm_spi_execute(psprintf("ALTER TABLE %s DROP CONSTRAINT " PROVEN_CHECK, piece->name));
	(void) sm_spi_execute(psprintf("ALTER TABLE %s DROP CONSTRAINT " PROVEN_CHECK, fallback));
}

/*
 * Move the events of a piece from the default partition to its table.
 *
 * The table may be attached already, up to where these events begin.  The
 * executor would not let them in, so they go in below it; nobody sees them
 * before the bound follows.  No trigger fires: these are no new events.
 */
static int64
move_events(const SmSchema *schema, const Piece *piece)
{
	uint64		n;
	SPITupleTable *moved;
	Relation	rel;
	TupleConversionMap *map;
	TupleTableSlot *slot;
	SmWriter   *writer;

	(void) sm_spi_execute(psprintf("DELETE FROM %s WHERE at >= '%s' AND at < '%s' RETURNING *",
								   sm_schema_qualify(schema, "session_events_default"),
								   utc_literal(piece->begin), utc_literal(piece->range.until)));
	n = SPI_processed;
	moved = SPI_tuptable;
	if (n > 0)
	{
		rel = table_open(piece->range.relid, RowExclusiveLock);
		map = convert_tuples_by_name(moved->tupdesc, RelationGetDescr(rel));
		slot = MakeSingleTupleTableSlot(RelationGetDescr(rel), &TTSOpsHeapTuple);
		writer = sm_writer_begin(rel, rel, Natts_session_events);
		for (uint64 i = 0; i < n; i++)
		{
			HeapTuple	tuple = moved->vals[i];

			CHECK_FOR_INTERRUPTS();
			if (map != NULL)
				tuple = execute_attr_map_tuple(tuple, map);
			ExecStoreHeapTuple(tuple, slot, map != NULL);
			simple_table_tuple_insert(rel, slot);
			if (writer->result_rel->ri_NumIndices > 0)
				list_free(sm_ExecInsertIndexTuples(writer->result_rel, slot,
												   writer->estate));
			ExecClearTuple(slot);
			ResetPerTupleExprContext(writer->estate);
		}
		sm_writer_end(writer);
		ExecDropSingleTupleTableSlot(slot);
		table_close(rel, NoLock);
		CommandCounterIncrement();
	}
	SPI_freetuptable(moved);
	return (int64) n;
}

/*
 * Triggers and rules of the default partition's owner may keep events there,
 * or put others there.  Behind the bounds of another partition no query that
 * names their time would look for them.
 */
static void
check_moved(const SmSchema *schema, const Range *range)
{
	Relation	rel = table_open(schema->events_default, NoLock);
	bool		alone = (rel->trigdesc == NULL && rel->rd_rules == NULL);
	TimestampTz at;

	table_close(rel, NoLock);
	if (!alone &&
		event_time(schema, "ASC", range->from, range->until, 0, &at))
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_ACTION_EXCEPTION),
				 errmsg("a trigger or rule on session_events_default prevented events from being moved")));
}

/*
 * Add a CHECK constraint that is known to hold, so that ATTACH PARTITION need
 * not read the table.  What VALIDATE CONSTRAINT would find out by reading it
 * follows from what we have just done under an ACCESS EXCLUSIVE lock: the
 * events of the range were deleted from the default partition, and looked for
 * by its index, see check_moved(); a new table got those and no others, and
 * one that grows had held nothing outside its old bounds.
 */
static void
add_proven_check(const char *table, Oid relid, const char *check)
{
	Relation	rel;
	Oid			oid;
	HeapTuple	tuple;

	(void) sm_spi_execute(psprintf("ALTER TABLE %s ADD CONSTRAINT " PROVEN_CHECK " CHECK (%s) NOT VALID",
								   table, check));
	oid = get_relation_constraint_oid(relid, PROVEN_CHECK, false);
	rel = table_open(ConstraintRelationId, RowExclusiveLock);
	tuple = SearchSysCacheCopy1(CONSTROID, ObjectIdGetDatum(oid));
	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for constraint %u", oid);
	((Form_pg_constraint) GETSTRUCT(tuple))->convalidated = true;
	CatalogTupleUpdate(rel, &tuple->t_self, tuple);
	heap_freetuple(tuple);
	table_close(rel, RowExclusiveLock);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

/*
 * Delete old events for which there never was a partition, as far as the
 * budget goes.
 */
static void
prune_default(const SmSchema *schema, TimestampTz cutoff, StepPlan *plan,
			  SmPartitionWork *work)
{
	char	   *fallback = sm_schema_qualify(schema, "session_events_default");
	int64		n;

	/* the steps before this one have left nothing but dead rows behind them */
	(void) sm_spi_execute(psprintf("DELETE FROM %s WHERE ctid = ANY (ARRAY("
								   "SELECT ctid FROM %s WHERE at < '%s'%s ORDER BY at LIMIT " INT64_FORMAT
								   " FOR UPDATE SKIP LOCKED)) RETURNING at",
								   fallback, fallback, utc_literal(cutoff),
								   work->pruned_until == 0 ? "" :
								   psprintf(" AND at >= '%s'", utc_literal(work->pruned_until)),
								   plan->budget));
	n = (int64) SPI_processed;
	for (int64 i = 0; i < n; i++)
	{
		bool		isnull;
		TimestampTz at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[i],
														   SPI_tuptable->tupdesc,
														   1, &isnull));

		if (at > EARLIEST && (work->pruned_until == 0 || at > work->pruned_until))
			work->pruned_until = at;
	}
	SPI_freetuptable(SPI_tuptable);
	plan->more |= (n == plan->budget);
	plan->budget -= n;
	work->events_dropped += n;
}

/* All of time, in order: partitions and the gaps between them. */
static List *
list_ranges(const SmSchema *schema)
{
	Relation	parent = table_open(schema->events, AccessShareLock);
	PartitionDesc desc = RelationGetPartitionDesc(parent, true);
	PartitionBoundInfo bounds = desc->boundinfo;
	int			n = bounds == NULL ? 0 : bounds->ndatums;
	List	   *result = NIL;

	/* indexes[i] is the partition that ends at datums[i], or -1 */
	for (int i = 0; i <= n; i++)
	{
		Range	   *range = palloc(sizeof(Range));

		range->from = DT_NOBEGIN;
		range->until = DT_NOEND;
		if (i > 0 && bounds->kind[i - 1][0] == PARTITION_RANGE_DATUM_VALUE)
			range->from = DatumGetTimestampTz(bounds->datums[i - 1][0]);
		if (i < n && bounds->kind[i][0] == PARTITION_RANGE_DATUM_VALUE)
			range->until = DatumGetTimestampTz(bounds->datums[i][0]);
		range->relid = n == 0 || bounds->indexes[i] < 0 ? InvalidOid :
			desc->oids[bounds->indexes[i]];
		result = lappend(result, range);
	}
	table_close(parent, AccessShareLock);
	return result;
}

/* How many events the default partition has of a range, up to a limit. */
static int64
count_events(const SmSchema *schema, TimestampTz from, TimestampTz until,
			 int64 limit)
{
	bool		isnull;

	(void) sm_spi_execute(psprintf("SELECT pg_catalog.count(*) FROM (SELECT FROM %s"
								   " WHERE at >= '%s' AND at < '%s' ORDER BY at LIMIT " INT64_FORMAT ") AS e",
								   sm_schema_qualify(schema, "session_events_default"),
								   utc_literal(from), utc_literal(until), limit));
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * The time of the event in the default partition that comes after "offset"
 * others of a range, in ascending or descending order; false if there is none.
 */
static bool
event_time(const SmSchema *schema, const char *order, TimestampTz from,
		   TimestampTz until, int64 offset, TimestampTz *at)
{
	bool		isnull;

	(void) sm_spi_execute(psprintf("SELECT at FROM %s WHERE at >= '%s' AND at < '%s'"
								   " ORDER BY at %s OFFSET " INT64_FORMAT " LIMIT 1",
								   sm_schema_qualify(schema, "session_events_default"),
								   utc_literal(from), utc_literal(until), order, offset));
	if (SPI_processed == 0)
		return false;
	*at = DatumGetTimestampTz(SPI_getbinval(SPI_tuptable->vals[0],
											SPI_tuptable->tupdesc, 1, &isnull));
	return true;
}

/* Take back what ALTER DEFAULT PRIVILEGES may have granted on a new table. */
static void
revoke_defaults(const SmSchema *schema, const char *relname)
{
	Oid			relid = get_relname_relid(relname, schema->namespace);
	char	   *revokes;

	(void) sm_spi_execute(psprintf("SELECT pg_catalog.string_agg(pg_catalog.format('REVOKE ALL ON TABLE %%s FROM %%s', c.oid::pg_catalog.regclass,"
								   " CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END), '; ')"
								   " FROM pg_catalog.pg_class c, pg_catalog.aclexplode(c.relacl) a"
								   " WHERE c.oid = %u AND a.grantee <> c.relowner", relid));
	revokes = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	if (revokes != NULL)
		(void) sm_spi_execute(revokes);
}

/* The day, ISO week or month, in UTC, around a moment. */
static void
period_around(TimestampTz at, Range *period)
{
	struct pg_tm tm;
	fsec_t		fsec;
	int64		day = at / USECS_PER_DAY - (at % USECS_PER_DAY < 0);
	int			month;

	period->relid = InvalidOid;
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
set_local(const char *name, const char *value)
{
	(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
}
