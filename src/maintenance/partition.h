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

#include "datatype/timestamp.h"

#include "maintenance/pass.h"
#include "schema.h"

/* How many indexes a partition is made with. */
#define SM_PARTITION_INDEXES	3

typedef struct SmPartitionWork
{
	int64		events_dropped;
	int64		events_moved;
	int32		created;
	int32		dropped;
	TimestampTz pruned_until;	/* 0: from the beginning */
	int			n_stuck;
	Oid			stuck[64];		/* partitions that could not be dropped */
} SmPartitionWork;

extern void sm_partitions_pass(SmPass *pass);
extern bool sm_partitions_step(const SmSchema *schema, int64 max_events,
							   SmPartitionWork *work);

#endif							/* SM_PARTITION_H */
