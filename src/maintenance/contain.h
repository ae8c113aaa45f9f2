/*-------------------------------------------------------------------------
 *
 * contain.h
 *	  Failures of maintenance, kept to what failed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CONTAIN_H
#define SM_CONTAIN_H

#include "postgres.h"

#include "datatype/timestamp.h"

#include "shared.h"

/* The steps of a pass of maintenance. */
typedef enum SmStep
{
	SM_STEP_FINDINGS,
	SM_STEP_TOUCHES,
	SM_STEP_SWEEP,
	SM_STEP_PARTITIONS,
	SM_STEP_RESEALING,
	SM_N_STEPS
} SmStep;

/* The last failure of a step, guarded by SmShared's lock. */
typedef struct SmFailure
{
	TimestampTz at;				/* 0: none yet */
	char		error[160];		/* in ASCII */
} SmFailure;

typedef void (*SmAction) (void *arg);

extern void sm_contain_init(void);
extern ErrorData *sm_try(SmAction action, void *arg);
extern void sm_failed(SmStep step, const char *what, ErrorData *error);
extern void sm_record_failure(SmStep step, int sqlerrcode, const char *message);
extern SmFailure *sm_failures(const SmDatabase *database);
extern void sm_check_at_once(void);
extern const char *sm_step_name(SmStep step);

#endif							/* SM_CONTAIN_H */
