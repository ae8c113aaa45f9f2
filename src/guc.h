/*-------------------------------------------------------------------------
 *
 * guc.h
 *	  The settings, as the other files read them.
 *
 * Durations are in seconds, except login_wait, revoke_commit_timeout, sweep_pause
 * and redis_timeout, which are in milliseconds.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_GUC_H
#define SM_GUC_H

#include "postgres.h"

typedef enum SmOnLimit
{
	SM_LIMIT_EVICT_OLDEST,
	SM_LIMIT_DENY
} SmOnLimit;

typedef enum SmClientBinding
{
	SM_BINDING_OFF,
	SM_BINDING_LOG,
	SM_BINDING_STRICT
} SmClientBinding;

typedef enum SmRevokeCommit
{
	SM_REVOKE_LOCAL,
	SM_REVOKE_REMOTE_APPLY
} SmRevokeCommit;

typedef enum SmRedisMode
{
	SM_REDIS_OFF,
	SM_REDIS_ASYNC,
	SM_REDIS_STRICT
} SmRedisMode;

typedef enum SmPartitionWidth
{
	SM_PARTITION_DAY,
	SM_PARTITION_WEEK,
	SM_PARTITION_MONTH
} SmPartitionWidth;

/* What guess.c can count. */
#define SM_MAX_GUESSING_THRESHOLD	500

extern int	sm_ttl;
extern int	sm_max_lifetime;
extern int	sm_idle_timeout;
extern int	sm_rotation_grace;
extern int	sm_touch_interval;
extern int	sm_max_sessions_per_user;
extern int	sm_on_limit;
extern int	sm_login_wait;
extern int	sm_revoke_commit;
extern int	sm_revoke_commit_timeout;
extern int	sm_max_data_size;
extern int	sm_client_binding;
extern bool sm_new_device_events;
extern int	sm_device_proof_lifetime;
extern int	sm_guessing_threshold;
extern int	sm_sweep_batch;
extern int	sm_event_retention;
extern int	sm_event_partition;
extern int	sm_revoked_retention;
extern bool sm_redact_tokens;
extern char *sm_key_file;
extern int	sm_touch_slots;
extern int	sm_flush_interval;
extern int	sm_sweep_interval;
extern int	sm_sweep_pause;
extern char *sm_databases;
extern bool sm_notify;
extern int	sm_redis_mode;
extern char *sm_redis_host;
extern int	sm_redis_port;
extern char *sm_redis_socket;
extern int	sm_redis_db;
extern char *sm_redis_user;
extern char *sm_redis_password_file;
extern int	sm_redis_timeout;
extern bool sm_redis_tls;
extern char *sm_redis_ca_file;
extern int	sm_cache_ttl;

/* session_manager.shard, and its buckets as a bitmap; NULL: all of them */
extern char *sm_shard;
extern const uint8 *sm_shard_buckets;
extern uint64 sm_shard_hash;	/* of the setting's text */

extern void sm_guc_init(void);

/* Does this server hold a bucket? */
static inline bool
sm_holds_bucket(uint16 bucket)
{
	return sm_shard_buckets == NULL ||
		(sm_shard_buckets[bucket / 8] & (1 << bucket % 8)) != 0;
}

#endif							/* SM_GUC_H */
