/*-------------------------------------------------------------------------
 *
 * partition.h
 *	  Partitions of session_events: made ahead, dropped after retention.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_PARTITION_H
#define SM_PARTITION_H

#include "postgres.h"

#include "schema.h"

typedef struct SmPartitionWork
{
	int64		events_dropped;
	int32		created;
	int32		dropped;
} SmPartitionWork;

extern void sm_partitions_maintain(const SmSchema *schema,
								   SmPartitionWork *work);

#endif							/* SM_PARTITION_H */
