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

#include "shared.h"

typedef void (*SmAction) (void *arg);

extern ErrorData *sm_try(SmAction action, void *arg);
extern void sm_failed(SmStep step, const char *what, ErrorData *error);
extern void sm_note_failure(SmStep step, int sqlerrcode, const char *message);
extern void sm_check_at_once(void);
extern const char *sm_step_name(SmStep step);

#endif							/* SM_CONTAIN_H */
