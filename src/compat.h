/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  Differences between PostgreSQL 15 and 18, in one place.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_COMPAT_H
#define SM_COMPAT_H

#include "postgres.h"

#if PG_VERSION_NUM < 150000
#error "session_manager needs PostgreSQL 15 or later"
#endif

#include "access/genam.h"
#include "access/tableam.h"
#include "executor/executor.h"
#include "parser/parse_relation.h"
#include "utils/guc.h"
#include "utils/rel.h"
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

#if PG_VERSION_NUM >= 180000
#define sm_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, NULL, nkeys, 0)
#else
#define sm_index_beginscan(heap, index, snapshot, nkeys) \
	index_beginscan(heap, index, snapshot, nkeys, 0)
#endif

#if PG_VERSION_NUM >= 160000
#define sm_EvalPlanQualInit(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1, NIL)
#else
#define sm_EvalPlanQualInit(epq, estate) \
	EvalPlanQualInit(epq, estate, NULL, NIL, -1)
#endif

/* Which of a table's indexes an update has to write to. */
#if PG_VERSION_NUM >= 160000
typedef TU_UpdateIndexes SmUpdateIndexes;
#define sm_ExecInsertIndexTuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL, \
						  false)
#define sm_ExecUpdateIndexTuples(result_rel, slot, estate, which) \
	((result_rel)->ri_NumIndices > 0 && (which) != TU_None ? \
	 ExecInsertIndexTuples(result_rel, slot, estate, true, false, NULL, NIL, \
						   (which) == TU_Summarizing) : NIL)
#else
typedef bool SmUpdateIndexes;
#define sm_ExecInsertIndexTuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL)
#define sm_ExecUpdateIndexTuples(result_rel, slot, estate, which) \
	((result_rel)->ri_NumIndices > 0 && (which) ? \
	 ExecInsertIndexTuples(result_rel, slot, estate, true, false, NULL, NIL) : \
	 NIL)
#endif

/* Triggers before a row that is locked is updated or deleted. */
#if PG_VERSION_NUM >= 180000
#define sm_ExecBRUpdateTriggers(estate, epq, result_rel, tid, slot) \
	ExecBRUpdateTriggers(estate, epq, result_rel, tid, NULL, slot, NULL, NULL, \
						 false)
#define sm_ExecBRDeleteTriggers(estate, epq, result_rel, tid) \
	ExecBRDeleteTriggers(estate, epq, result_rel, tid, NULL, NULL, NULL, NULL, \
						 false)
#elif PG_VERSION_NUM >= 160000
#define sm_ExecBRUpdateTriggers(estate, epq, result_rel, tid, slot) \
	ExecBRUpdateTriggers(estate, epq, result_rel, tid, NULL, slot, NULL, NULL)
#define sm_ExecBRDeleteTriggers(estate, epq, result_rel, tid) \
	ExecBRDeleteTriggers(estate, epq, result_rel, tid, NULL, NULL, NULL, NULL)
#else
#define sm_ExecBRUpdateTriggers(estate, epq, result_rel, tid, slot) \
	ExecBRUpdateTriggers(estate, epq, result_rel, tid, NULL, slot, NULL)
#define sm_ExecBRDeleteTriggers(estate, epq, result_rel, tid) \
	ExecBRDeleteTriggers(estate, epq, result_rel, tid, NULL, NULL)
#endif

/* The columns that a statement on the only table of a range table updates. */
#if PG_VERSION_NUM >= 160000
#define sm_updated_cols(estate) \
	(linitial_node(RTEPermissionInfo, (estate)->es_rteperminfos)->updatedCols)
#else
#define sm_updated_cols(estate) \
	(linitial_node(RangeTblEntry, (estate)->es_range_table)->updatedCols)
#endif

/* A range table of one table. */
static inline void
sm_init_range_table(EState *estate, Relation rel)
{
	RangeTblEntry *rte = makeNode(RangeTblEntry);

	rte->rtekind = RTE_RELATION;
	rte->relid = RelationGetRelid(rel);
	rte->relkind = rel->rd_rel->relkind;
	rte->rellockmode = RowExclusiveLock;
#if PG_VERSION_NUM >= 160000
	{
		List	   *perminfos = NIL;

		addRTEPermissionInfo(&perminfos, rte);
#if PG_VERSION_NUM >= 180000
		ExecInitRangeTable(estate, list_make1(rte), perminfos,
						   bms_make_singleton(1));
#else
		ExecInitRangeTable(estate, list_make1(rte), perminfos);
#endif
	}
#else
	ExecInitRangeTable(estate, list_make1(rte));
#endif
}

#if PG_VERSION_NUM >= 170000
#define sm_local_transaction() (MyProc->vxid.lxid)
#else
#define sm_local_transaction() (MyProc->lxid)
#endif

#if PG_VERSION_NUM >= 170000
#define sm_create_wait_set(n) CreateWaitEventSet(NULL, n)
#else
#define sm_create_wait_set(n) CreateWaitEventSet(TopMemoryContext, n)
#endif

#endif							/* SM_COMPAT_H */
