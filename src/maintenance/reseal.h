/*-------------------------------------------------------------------------
 *
 * reseal.h
 *	  Moves seals to the active key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_RESEAL_H
#define SM_RESEAL_H

#include "postgres.h"

#include "utils/uuid.h"

#include "maintenance/pass.h"
#include "schema.h"

/* A walk through the table, by id. */
typedef struct SmReseal
{
	const SmSchema *schema;
	int32		active;
	pg_uuid_t	after;			/* where to begin, and then how far it came */
	bool		at_end;
	int64		skipped;
	int64		failed;
} SmReseal;

/* Of a database: re-sealing by workers.  Guarded by SmShared's lock. */
typedef struct SmResealState
{
	int32		key;			/* 0: nothing to do */
	int64		resealed;		/* for that key, ever */
	int64		resealed_in_round;
	int64		failed_in_round;
	int64		retry_at;		/* by sm_clock(); 0: at any time */
	int64		retry_us;
	pg_uuid_t	after;
} SmResealState;

extern void sm_reseal_init(void);
extern SmResealState *sm_reseal_state(const SmDatabase *database);
extern void sm_reseal_pass(SmPass *pass);
extern int64 sm_reseal(SmReseal *reseal, int64 batch);

#endif							/* SM_RESEAL_H */
