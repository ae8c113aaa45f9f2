/*-------------------------------------------------------------------------
 *
 * activity.h
 *	  Numbers of events by the hour, kept beside the audit trail.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_ACTIVITY_H
#define SM_ACTIVITY_H

#include "postgres.h"

#include "maintenance/pass.h"
#include "schema.h"

/* Events that are not counted yet, of which a call looks at no more. */
#define SM_UNCOUNTED_EVENTS	250000

extern void sm_activity_pass(SmPass *pass);
extern bool sm_activity_step(const SmSchema *schema);

#endif							/* SM_ACTIVITY_H */
