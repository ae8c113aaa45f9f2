/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  Background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_WORKER_H
#define SM_WORKER_H

#include "postgres.h"

extern void sm_worker_init(void);

#endif							/* SM_WORKER_H */
