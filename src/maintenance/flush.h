/*-------------------------------------------------------------------------
 *
 * flush.h
 *	  Writes last-seen times that session_get recorded.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_FLUSH_H
#define SM_FLUSH_H

#include "postgres.h"

#include "maintenance/pass.h"

extern void sm_flush_touches(SmPass *pass);

#endif							/* SM_FLUSH_H */
