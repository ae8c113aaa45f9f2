/*-------------------------------------------------------------------------
 *
 * writer.c
 *	  Writes rows as INSERT, UPDATE and DELETE do.
 *
 * The tables belong to their owner, who may add columns, constraints, indexes
 * and triggers.  What the executor does about those when it runs a statement
 * is done here too, in the same order and by the same functions: defaults of
 * columns that the extension does not know, generated columns, constraints,
 * triggers for rows and for statements, transition tables.  Each row is
 * written by a statement of its own.  What is left out belongs to the planner
 * and the rewriter: privileges, row-level security and rules.
 *
 * A row may be written to a partition whose columns are those of its parent
 * in another order, or with others that were dropped.  Then the parent is the
 * table that a statement would name: its defaults count, and its triggers for
 * statements fire.
 *
 * An error never shows the row, as the executor's would: a row of
 * user_sessions holds what authenticates a session, and errors are logged.
 *
 * All functions expect the caller's locks on the tables, and must be called in
 * a memory context that may be reset after each row; a writer lives in the one
 * in which it was begun.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "executor/nodeModifyTable.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "rewrite/rewriteHandler.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "cache/writer.h"
#include "compat.h"
#include "session/writer.h"

static void open_executor(SmWriter *writer);
static void close_executor(SmWriter *writer);
static bool same_columns(Relation rel, Relation root);
static void init_result_rels(SmWriter *writer);
static void init_defaults(SmWriter *writer);
static ExprState *column_default(SmWriter *writer, int attnum);
static TransitionCaptureState *begin_statement(SmWriter *writer,
											   CmdType command);
static void end_statement(SmWriter *writer, CmdType command,
						  TransitionCaptureState *transition);
static void set_updated(SmWriter *writer, const int *columns, int n);
static void fill_slot(SmWriter *writer, const Datum *values, const bool *nulls);
static List *store_new(SmWriter *writer);
static List *store_changed(SmWriter *writer, ItemPointer tid,
						   TupleTableSlot *slot, Snapshot snapshot);
static void check_row(SmWriter *writer, TupleTableSlot *slot, CmdType command);
static void rethrow_without_row(Relation rel, MemoryContext context);

/*
 * Start writing to a table, or to a partition of one.  The first "natts" of
 * its columns are those that the extension made.
 */
SmWriter *
sm_writer_begin(Relation rel, Relation root, int natts)
{
	SmWriter   *writer = palloc0(sizeof(SmWriter));

	writer->context = CurrentMemoryContext;
	writer->rel = rel;
	writer->root = root;
	writer->natts = natts;
	open_executor(writer);
	return writer;
}

void
sm_writer_end(SmWriter *writer)
{
	close_executor(writer);
	pfree(writer);
}

/*
 * Insert a row with the extension's columns as given.  False if a trigger
 * will not have it.
 */
bool
sm_writer_insert(SmWriter *writer, const Datum *values, const bool *nulls)
{
	TransitionCaptureState *transition = begin_statement(writer, CMD_INSERT);
	ResultRelInfo *result_rel = writer->result_rel;
	TriggerDesc *triggers = result_rel->ri_TrigDesc;
	bool		wanted = true;

	fill_slot(writer, values, nulls);
	if (triggers && triggers->trig_insert_before_row)
		wanted = ExecBRInsertTriggers(writer->estate, result_rel, writer->slot);
	if (wanted)
	{
		List	   *recheck = store_new(writer);

		if (writer->fires)
			ExecARInsertTriggers(writer->estate, result_rel, writer->slot,
								 recheck, transition);
		list_free(recheck);
	}
	end_statement(writer, CMD_INSERT, transition);
	ExecClearTuple(writer->slot);
	return wanted;
}

/*
 * Write new values of some columns to a row that is locked.  False if a
 * trigger will not have it.
 */
bool
sm_writer_update(SmWriter *writer, TupleTableSlot *old, Snapshot snapshot,
				 const SmNewValues *new)
{
	TransitionCaptureState *transition;
	ResultRelInfo *result_rel;
	ItemPointerData tid = old->tts_tid;
	TupleTableSlot *slot = MakeSingleTupleTableSlot(RelationGetDescr(writer->rel),
													&TTSOpsHeapTuple);
	HeapTuple	tuple;
	bool		wanted = true;

	set_updated(writer, new->columns, new->n);
	result_rel = writer->result_rel;
	transition = begin_statement(writer, CMD_UPDATE);
	writer->estate->es_snapshot = snapshot;
	/* columns that this library does not know keep their values */
	tuple = heap_modify_tuple_by_cols(ExecFetchSlotHeapTuple(old, false, NULL),
									  RelationGetDescr(writer->rel), new->n,
									  new->columns, new->values, new->nulls);
	ExecStoreHeapTuple(tuple, slot, false);
	if (result_rel->ri_TrigDesc &&
		result_rel->ri_TrigDesc->trig_update_before_row)
		wanted = sm_ExecBRUpdateTriggers(writer->estate, &writer->epq,
										 result_rel, &tid, slot);
	if (wanted)
	{
		List	   *recheck = store_changed(writer, &tid, slot, snapshot);

		if (writer->fires)
			ExecARUpdateTriggers(writer->estate, result_rel, NULL, NULL, &tid,
								 NULL, slot, recheck, transition, false);
		list_free(recheck);
	}
	end_statement(writer, CMD_UPDATE, transition);
	ExecDropSingleTupleTableSlot(slot);
	heap_freetuple(tuple);
	return wanted;
}

/*
 * Delete a row that is locked.  False if a trigger will not have it.
 */
bool
sm_writer_delete(SmWriter *writer, TupleTableSlot *old, Snapshot snapshot)
{
	TransitionCaptureState *transition = begin_statement(writer, CMD_DELETE);
	ResultRelInfo *result_rel = writer->result_rel;
	TriggerDesc *triggers = result_rel->ri_TrigDesc;
	ItemPointerData tid = old->tts_tid;
	bool		wanted = true;

	CheckCmdReplicaIdentity(writer->rel, CMD_DELETE);
	writer->estate->es_snapshot = snapshot;
	if (triggers && triggers->trig_delete_before_row)
		wanted = sm_ExecBRDeleteTriggers(writer->estate, &writer->epq,
										 result_rel, &tid);
	if (wanted)
	{
		simple_table_tuple_delete(writer->rel, &tid, snapshot);
		if (writer->fires)
			ExecARDeleteTriggers(writer->estate, result_rel, &tid, NULL,
								 transition, false);
	}
	end_statement(writer, CMD_DELETE, transition);
	return wanted;
}

static void
open_executor(SmWriter *writer)
{
	MemoryContext old = MemoryContextSwitchTo(writer->context);

	writer->estate = CreateExecutorState();
	MemoryContextSwitchTo(writer->estate->es_query_cxt);
	init_result_rels(writer);
	writer->map = same_columns(writer->rel, writer->root) ? NULL :
		convert_tuples_by_name(RelationGetDescr(writer->root),
							   RelationGetDescr(writer->rel));
	writer->slot = NULL;
	MemoryContextSwitchTo(old);
}

static void
close_executor(SmWriter *writer)
{
	EvalPlanQualEnd(&writer->epq);
	ExecCloseResultRelations(writer->estate);
	ExecResetTupleTable(writer->estate->es_tupleTable, false);
	FreeExecutorState(writer->estate);
}

/* Quicker than finding out that no map is needed. */
static bool
same_columns(Relation rel, Relation root)
{
	TupleDesc	ours = RelationGetDescr(rel);
	TupleDesc	theirs = RelationGetDescr(root);

	if (rel == root)
		return true;
	if (ours->natts != theirs->natts)
		return false;
	for (int i = 0; i < ours->natts; i++)
	{
		Form_pg_attribute a = TupleDescAttr(ours, i);
		Form_pg_attribute b = TupleDescAttr(theirs, i);

		if (a->attisdropped || b->attisdropped || a->atttypid != b->atttypid ||
			strcmp(NameStr(a->attname), NameStr(b->attname)) != 0)
			return false;
	}
	return true;
}

/*
 * The table as the executor sees it.  The range table, which is there for
 * what depends on the columns of an update, has the table that a statement
 * would name; the partition is known as found by way of that.
 */
static void
init_result_rels(SmWriter *writer)
{
	Relation	rel = writer->rel;
	Relation	root = writer->root;
	EState	   *estate = writer->estate;

	bool		root_fires = (root != rel && root->trigdesc != NULL);
	Index		index = 0;

	/*
	 * the extension's own triggers are for others: it has recorded this
	 * already
	 */
	writer->fires = root_fires || !sm_cache_only_trigger(rel);
	writer->by_column = writer->fires ||
		(RelationGetDescr(rel)->constr != NULL &&
		 RelationGetDescr(rel)->constr->has_generated_stored);
	if (writer->by_column)
	{
		sm_init_range_table(estate, root);
		index = 1;
	}
	writer->result_rel = makeNode(ResultRelInfo);
	if (root_fires)
	{
		writer->root_rel = makeNode(ResultRelInfo);
		InitResultRelInfo(writer->root_rel, root, index, NULL, 0);
		InitResultRelInfo(writer->result_rel, rel, 0, writer->root_rel, 0);
	}
	else
	{
		writer->root_rel = writer->result_rel;
		InitResultRelInfo(writer->result_rel, rel, index, NULL, 0);
	}
	if (!writer->fires)
		writer->result_rel->ri_TrigDesc = NULL;
	ExecOpenIndices(writer->result_rel, false);

	/* where triggers look for it */
	estate->es_opened_result_relations = list_make1(writer->result_rel);
	if (writer->root_rel != writer->result_rel)
		estate->es_opened_result_relations =
			lappend(estate->es_opened_result_relations, writer->root_rel);
	sm_EvalPlanQualInit(&writer->epq, estate);
}

/* What begins a statement; returns where transition tables are collected. */
static TransitionCaptureState *
begin_statement(SmWriter *writer, CmdType command)
{
	EState	   *estate = writer->estate;

	estate->es_output_cid = GetCurrentCommandId(true);
	if (!writer->fires)
		return NULL;
	AfterTriggerBeginQuery();
	if (command == CMD_INSERT)
		ExecBSInsertTriggers(estate, writer->root_rel);
	else if (command == CMD_UPDATE)
		ExecBSUpdateTriggers(estate, writer->root_rel);
	else
		ExecBSDeleteTriggers(estate, writer->root_rel);
	return MakeTransitionCaptureState(writer->root_rel->ri_TrigDesc,
									  RelationGetRelid(writer->root), command);
}

/* What ends a statement: triggers after it fire here. */
static void
end_statement(SmWriter *writer, CmdType command,
			  TransitionCaptureState *transition)
{
	EState	   *estate = writer->estate;

	if (writer->fires)
	{
		if (command == CMD_INSERT)
			ExecASInsertTriggers(estate, writer->root_rel, transition);
		else if (command == CMD_UPDATE)
			ExecASUpdateTriggers(estate, writer->root_rel, transition);
		else
			ExecASDeleteTriggers(estate, writer->root_rel, transition);
		AfterTriggerEndQuery(estate);
	}
	ResetPerTupleExprContext(estate);
}

/*
 * Say which columns an update is of: triggers and generated columns depend on
 * it.  The executor prepares itself for one statement, and is set up again for
 * one that updates other columns.
 */
static void
set_updated(SmWriter *writer, const int *columns, int n)
{
	Bitmapset  *updated = NULL;
	MemoryContext old;

	if (!writer->by_column)
		return;
	for (int i = 0; i < n; i++)
		updated = bms_add_member(updated, columns[i] -
								 FirstLowInvalidHeapAttributeNumber);
	if (!bms_equal(updated, sm_updated_cols(writer->estate)))
	{
		if (sm_updated_cols(writer->estate) != NULL)
		{
			close_executor(writer);
			open_executor(writer);
		}
		old = MemoryContextSwitchTo(writer->estate->es_query_cxt);
		sm_updated_cols(writer->estate) = bms_copy(updated);
		MemoryContextSwitchTo(old);
	}
	bms_free(updated);
}

/* Make the row to be inserted, in the columns of where it goes. */
static void
fill_slot(SmWriter *writer, const Datum *values, const bool *nulls)
{
	TupleDesc	desc = RelationGetDescr(writer->root);
	TupleTableSlot *slot;

	if (writer->slot == NULL)
	{
		MemoryContext old = MemoryContextSwitchTo(writer->estate->es_query_cxt);

		writer->slot = ExecInitExtraTupleSlot(writer->estate,
											  RelationGetDescr(writer->rel),
											  &TTSOpsVirtual);
		writer->root_slot = writer->map == NULL ? writer->slot :
			ExecInitExtraTupleSlot(writer->estate, desc, &TTSOpsVirtual);
		if (desc->natts > writer->natts)
			init_defaults(writer);
		MemoryContextSwitchTo(old);
	}

	slot = ExecClearTuple(writer->root_slot);
	memcpy(slot->tts_values, values, writer->natts * sizeof(Datum));
	memcpy(slot->tts_isnull, nulls, writer->natts * sizeof(bool));
	for (int i = writer->natts; i < desc->natts; i++)
	{
		ExprState  *state = writer->defaults[i];

		slot->tts_isnull[i] = true;
		if (state != NULL)
			slot->tts_values[i] =
				ExecEvalExprSwitchContext(state,
										  GetPerTupleExprContext(writer->estate),
										  &slot->tts_isnull[i]);
	}
	ExecStoreVirtualTuple(slot);
	if (writer->map != NULL)
		execute_attr_map_slot(writer->map->attrMap, slot, writer->slot);
}

static void
init_defaults(SmWriter *writer)
{
	TupleDesc	desc = RelationGetDescr(writer->root);

	writer->defaults = palloc0(desc->natts * sizeof(ExprState *));
	for (int i = writer->natts; i < desc->natts; i++)
	{
		Form_pg_attribute column = TupleDescAttr(desc, i);

		if (!column->attisdropped && !column->attgenerated)
			writer->defaults[i] = column_default(writer, i + 1);
	}
}

/* What a column holds that an INSERT does not name; NULL for null. */
static ExprState *
column_default(SmWriter *writer, int attnum)
{
	Form_pg_attribute column = TupleDescAttr(RelationGetDescr(writer->root),
											 attnum - 1);
	Node	   *expr = build_column_default(writer->root, attnum);

	if (expr == NULL && get_typtype(column->atttypid) == TYPTYPE_DOMAIN)
	{
		/* it may refuse null */
		int32		typmod = column->atttypmod;
		Oid			base = getBaseTypeAndTypmod(column->atttypid, &typmod);

		expr = coerce_to_domain((Node *) makeNullConst(base, typmod,
													   column->attcollation),
								base, typmod, column->atttypid,
								COERCION_IMPLICIT, COERCE_IMPLICIT_CAST,
								-1, false);
	}
	return expr == NULL ? NULL : ExecPrepareExpr((Expr *) expr, writer->estate);
}

/* Insert what is in the slot; returns the indexes to be checked again. */
static List *
store_new(SmWriter *writer)
{
	ResultRelInfo *result_rel = writer->result_rel;
	TriggerDesc *triggers = result_rel->ri_TrigDesc;
	MemoryContext context = CurrentMemoryContext;
	List	   *volatile recheck = NIL;

	PG_TRY();
	{
		check_row(writer, writer->slot, CMD_INSERT);

		/*
		 * The partition was chosen for this row, so its constraint, which
		 * costs more to check than the insertion, is in doubt only after
		 * triggers.
		 */
		if (writer->rel->rd_rel->relispartition &&
			triggers && triggers->trig_insert_before_row)
			ExecPartitionCheck(result_rel, writer->slot, writer->estate, true);
		simple_table_tuple_insert(writer->rel, writer->slot);
		if (result_rel->ri_NumIndices > 0)
			recheck = sm_ExecInsertIndexTuples(result_rel, writer->slot,
											   writer->estate);
	}
	PG_CATCH();
	{
		rethrow_without_row(writer->rel, context);
	}
	PG_END_TRY();
	return recheck;
}

/* The same for a row that is replaced. */
static List *
store_changed(SmWriter *writer, ItemPointer tid, TupleTableSlot *slot,
			  Snapshot snapshot)
{
	MemoryContext context = CurrentMemoryContext;
	List	   *volatile recheck = NIL;

	PG_TRY();
	{
		SmUpdateIndexes update_indexes;

		CheckCmdReplicaIdentity(writer->rel, CMD_UPDATE);
		check_row(writer, slot, CMD_UPDATE);
		simple_table_tuple_update(writer->rel, tid, slot, snapshot,
								  &update_indexes);
		recheck = sm_ExecUpdateIndexTuples(writer->result_rel, slot,
										   writer->estate, update_indexes);
	}
	PG_CATCH();
	{
		rethrow_without_row(writer->rel, context);
	}
	PG_END_TRY();
	return recheck;
}

/* Compute generated columns and check constraints. */
static void
check_row(SmWriter *writer, TupleTableSlot *slot, CmdType command)
{
	TupleConstr *constraints = RelationGetDescr(writer->rel)->constr;

	slot->tts_tableOid = RelationGetRelid(writer->rel);
	if (constraints == NULL)
		return;
	if (constraints->has_generated_stored)
		ExecComputeStoredGenerated(writer->result_rel, writer->estate, slot,
								   command);
	ExecConstraints(writer->result_rel, slot, writer->estate);
}

/* Raise the error that was caught again, without values of the row. */
static void
rethrow_without_row(Relation rel, MemoryContext context)
{
	ErrorData  *error;

	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	if (error->detail != NULL && error->table_name != NULL &&
		strcmp(error->table_name, RelationGetRelationName(rel)) == 0)
		error->detail = error->detail_log = NULL;
	ReThrowError(error);
}
