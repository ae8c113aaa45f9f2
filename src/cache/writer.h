/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  What transactions that change sessions owe to the cache.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_WRITER_H
#define SM_CACHE_WRITER_H

#include "postgres.h"

#include "utils/rel.h"
#include "utils/uuid.h"

#include "schema.h"

extern void sm_cache_writer_init(void);
extern void sm_cache_session_changed(const SmSchema *schema,
									 const pg_uuid_t *session_id);
extern void sm_cache_everything_changed(const SmSchema *schema);
extern bool sm_cache_only_trigger(Relation rel);

#endif							/* SM_CACHE_WRITER_H */
