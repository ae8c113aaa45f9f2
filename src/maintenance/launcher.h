/*-------------------------------------------------------------------------
 *
 * launcher.h
 *	  The launcher of background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_LAUNCHER_H
#define SM_LAUNCHER_H

#include "postgres.h"

extern void sm_launcher_init(void);

#endif							/* SM_LAUNCHER_H */
