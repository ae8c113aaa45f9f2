/*-------------------------------------------------------------------------
 *
 * stats.h
 *	  The counters of a database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_STATS_H
#define SM_STATS_H

/* In the order of the columns of session_stats. */
typedef enum SmCounter
{
	SM_GET_HIT,
	SM_GET_UNKNOWN,
	SM_GET_EXPIRED,
	SM_GET_IDLE,
	SM_GET_REVOKED,
	SM_GET_MALFORMED,
	SM_GET_REJECTED,
	SM_GET_CORRUPT,
	SM_CREATED,
	SM_LIMIT_DENIED,
	SM_REFRESHED,
	SM_ROTATED,
	SM_ELEVATED,
	SM_REUSED,
	SM_UPDATED,
	SM_INVALIDATED_LOGOUT,
	SM_INVALIDATED_LOGOUT_ALL,
	SM_INVALIDATED_ADMIN,
	SM_INVALIDATED_OTHER,
	SM_EVICTED,
	SM_SWEEPS,
	SM_SWEPT,
	SM_REQUEUED,
	SM_TOUCHES_BUFFERED,
	SM_TOUCHES_FLUSHED,
	SM_TOUCHES_DIRECT,
	SM_TOUCHES_FALLBACK,
	SM_TOUCHES_DROPPED,
	SM_VERDICTS_QUEUED,
	SM_VERDICTS_OVERFLOWED,
	SM_RESEALED,
	SM_N_COUNTERS
} SmCounter;

#endif							/* SM_STATS_H */
