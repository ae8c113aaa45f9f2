/*-------------------------------------------------------------------------
 *
 * outbox.h
 *	  The outbox as the cache worker reads it: what has been committed.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_OUTBOX_H
#define SM_CACHE_OUTBOX_H

#include "postgres.h"

extern void sm_outbox_init(void);
extern bool sm_outbox_has_news(void);
extern void sm_outbox_read_soon(void);
extern void sm_outbox_read_at_once(void);
extern int64 sm_outbox_read_at(void);
extern bool sm_outbox_read(void);
extern bool sm_outbox_is_empty(void);
extern bool sm_outbox_is_overdue(int64 now);
extern void sm_outbox_forget(void);

#endif							/* SM_CACHE_OUTBOX_H */
