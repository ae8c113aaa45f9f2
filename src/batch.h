/*-------------------------------------------------------------------------
 *
 * batch.h
 *	  Transactions of background workers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_BATCH_H
#define SM_BATCH_H

#include "postgres.h"

#include "schema.h"

extern void sm_batch_connect(Oid database);
extern const SmSchema *sm_batch_begin(const char *activity);
extern void sm_batch_end(void);

#endif							/* SM_BATCH_H */
