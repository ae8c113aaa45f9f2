/*-------------------------------------------------------------------------
 *
 * pass.h
 *	  A pass of a worker through its database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_PASS_H
#define SM_PASS_H

#include "postgres.h"

#include "schema.h"
#include "shared.h"

typedef struct SmPass
{
	int64		started_at;		/* by sm_clock() */
	bool		full;			/* not only for findings and touches */
	bool		unfinished;
	bool		failed;			/* a step of it did, as a whole */
	bool		may_maintain;	/* full, and no dump is being restored */
	Oid			maintained;		/* the session_events of which that is true */
	bool		served;			/* the extension is there and ours */
} SmPass;

extern const SmSchema *sm_pass_batch(SmPass *pass, const char *activity);
extern bool sm_pass_is_over(SmPass *pass);
extern int64 sm_pass_retry_gap(SmDatabase *database);

#endif							/* SM_PASS_H */
