/*-------------------------------------------------------------------------
 *
 * cascade.h
 *	  Whose code runs when a session is deleted by maintenance?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CASCADE_H
#define SM_CASCADE_H

#include "postgres.h"

#include "schema.h"

extern void sm_check_cascades(const SmSchema *schema);

#endif							/* SM_CASCADE_H */
