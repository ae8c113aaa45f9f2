/*-------------------------------------------------------------------------
 *
 * hand_over.h
 *	  Lets another server take over the sessions that this one gives away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_HAND_OVER_H
#define SM_HAND_OVER_H

#include "postgres.h"

#include "schema.h"

extern void sm_hand_over(const SmSchema *schema);

#endif							/* SM_HAND_OVER_H */
