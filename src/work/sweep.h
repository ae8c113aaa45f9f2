/*-------------------------------------------------------------------------
 *
 * sweep.h
 *	  Deletes dead sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SWEEP_H
#define SM_SWEEP_H

#include "postgres.h"

#include "schema.h"
#include "shared.h"

typedef struct SmSweep
{
	int64		deleted;
	int64		requeued;
	bool		yields;			/* give way to traffic now and then */
} SmSweep;

extern int64 sm_sweep(const SmSchema *schema, int64 max_rows,
					  SmSweepPosition *from, SmSweep *sweep);

#endif							/* SM_SWEEP_H */
