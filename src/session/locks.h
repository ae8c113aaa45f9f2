/*-------------------------------------------------------------------------
 *
 * locks.h
 *	  Who may log a user in, end a user's sessions, or maintain partitions
 *	  at the same time as whom.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_LOCKS_H
#define SM_LOCKS_H

#include "postgres.h"

#include "schema.h"

/* Waits of a function that are bounded, see sm_bound_waits(). */
typedef struct SmBoundedWaits
{
	int			guc_level;
	ErrorContextCallback context;
} SmBoundedWaits;

extern uint64 sm_user_text_hash(text *user_id);
extern void sm_lock_login(text *user_id, bool counted);
extern void sm_lock_user(text *user_id);
extern void sm_wait_for_logins(void);
extern void sm_bound_waits(SmBoundedWaits *waits);
extern void sm_unbound_waits(SmBoundedWaits *waits);
extern bool sm_lock_maintenance(void);
extern void sm_wait_for_writers(const SmSchema *schema);

#endif							/* SM_LOCKS_H */
