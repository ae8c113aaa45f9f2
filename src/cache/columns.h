/*-------------------------------------------------------------------------
 *
 * columns.h
 *	  Which columns matter to the cache.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CACHE_COLUMNS_H
#define SM_CACHE_COLUMNS_H

#include "postgres.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "datatype/timestamp.h"

extern bool sm_cache_changes_matter(const bool *replaces, const Datum *values,
									TimestampTz expires_at);
extern bool sm_cache_session_differs(TupleDesc desc, HeapTuple before,
									 HeapTuple after);
extern bool sm_cache_key_differs(TupleDesc desc, HeapTuple before,
								 HeapTuple after);

#endif							/* SM_CACHE_COLUMNS_H */
