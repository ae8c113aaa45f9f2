/*-------------------------------------------------------------------------
 *
 * restore.h
 *	  Is a dump being restored into this database?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_RESTORE_H
#define SM_RESTORE_H

#include "postgres.h"

#include "maintenance/pass.h"
#include "shared.h"

/*
 * Of a database.  The lock guards waits_for; the rest is the worker's alone.
 */
typedef struct SmRestoreState
{
	Oid			settled;		/* the session_events that is whole */
	Oid			seen;			/* the one seen with a key, first at: */
	int64		seen_at;		/* by sm_clock() */
	char		waits_for[160]; /* empty: nothing */
} SmRestoreState;

extern void sm_restore_init(void);
extern SmRestoreState *sm_restore_state(const SmDatabase *database);
extern void sm_restore_pass(SmPass *pass);

#endif							/* SM_RESTORE_H */
