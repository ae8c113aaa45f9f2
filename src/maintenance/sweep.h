/*-------------------------------------------------------------------------
 *
 * sweep.h
 *	  Deletes ended sessions.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SWEEP_H
#define SM_SWEEP_H

#include "postgres.h"

#include "maintenance/pass.h"
#include "schema.h"
#include "session/store.h"

typedef struct SmSweep
{
	int64		deleted;
	int64		requeued;
	bool		rests;			/* leave half of a processor to traffic */
} SmSweep;

/* Of a database: where the sweep goes on.  Written by the worker alone. */
typedef struct SmSweepState
{
	SmSweepPosition from;
	bool		unfinished;
	int64		began_at;		/* by sm_clock(), last from the beginning */
	int64		walk_us;		/* what it took to find the first row then */
} SmSweepState;

extern void sm_sweep_init(void);
extern SmSweepState *sm_sweep_state(const SmDatabase *database);
extern void sm_sweep_pass(SmPass *pass);
extern int64 sm_sweep(const SmSchema *schema, int64 max_rows,
					  SmSweepPosition *from, SmSweep *sweep);

#endif							/* SM_SWEEP_H */
