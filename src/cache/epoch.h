/*-------------------------------------------------------------------------
 *
 * epoch.h
 *	  The epoch under which cached values count.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_EPOCH_H
#define SM_CACHE_EPOCH_H

#include "postgres.h"

typedef enum SmEpochState
{
	SM_EPOCH_FORMER,			/* another connection's may be alive */
	SM_EPOCH_NONE,
	SM_EPOCH_REQUESTED,
	SM_EPOCH_ALIVE,
	SM_EPOCH_ENDING
} SmEpochState;

extern void sm_epoch_init(void (*died) (void));
extern void sm_epoch_connect(void);
extern void sm_epoch_disconnect(void);
extern void sm_epoch_await_former(void);

extern SmEpochState sm_epoch_state(void);
extern bool sm_epoch_is_known(void);
extern bool sm_epoch_is_over(void);

/* each must be allowed by the rules in worker.c */
extern bool sm_epoch_make(void);
extern void sm_epoch_tend(bool (*nothing_waits) (void));

extern void sm_epoch_want_end(void);
extern bool sm_epoch_end_is_wanted(void);
extern void sm_epoch_end(void);

#endif							/* SM_CACHE_EPOCH_H */
