/*-------------------------------------------------------------------------
 *
 * transaction.h
 *	  Transactions of the cache worker.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_TRANSACTION_H
#define SM_CACHE_TRANSACTION_H

#include "postgres.h"

#include "schema.h"

extern void sm_cache_handle_sigterm(SIGNAL_ARGS);
extern const SmSchema *sm_cache_start_transaction(const char *activity);
extern void sm_cache_end_transaction(void);

#endif							/* SM_CACHE_TRANSACTION_H */
