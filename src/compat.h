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
#include "utils/guc.h"
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

#if PG_VERSION_NUM >= 160000
#define sm_ExecInsertIndexTuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL, \
						  false)
#else
#define sm_ExecInsertIndexTuples(result_rel, slot, estate) \
	ExecInsertIndexTuples(result_rel, slot, estate, false, false, NULL, NIL)
#endif

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
