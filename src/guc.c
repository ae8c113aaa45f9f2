/*-------------------------------------------------------------------------
 *
 * guc.c
 *	  Every setting of the extension, with its check hooks.
 *
 * What decides how long a session lives, or what is logged of it, is set by
 * superusers only: the application's role runs arbitrary SQL as far as we
 * know, and must not be able to lift a limit with SET.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <limits.h>

#include "common/hashfn.h"
#include "miscadmin.h"

#include "compat.h"
#include "guc.h"

/* Fifty years: keeps every sum of times far from overflow. */
#define MAX_SECONDS		(50 * 366 * 24 * 3600)

/* as many as 16 bits of a session id tell apart */
#define N_BUCKETS		65536

int			sm_ttl;
int			sm_max_lifetime;
int			sm_idle_timeout;
int			sm_rotation_grace;
int			sm_touch_interval;
int			sm_max_sessions_per_user;
int			sm_on_limit;
int			sm_login_wait;
int			sm_revoke_commit;
int			sm_revoke_commit_timeout;
int			sm_max_data_size;
int			sm_client_binding;
bool		sm_new_device_events;
int			sm_device_proof_lifetime;
int			sm_guessing_threshold;
int			sm_sweep_batch;
int			sm_event_retention;

/* its default, as a server with assertions wants from PostgreSQL 16 on of an enum */
int			sm_event_partition = SM_PARTITION_MONTH;
int			sm_revoked_retention;
bool		sm_redact_tokens;
char	   *sm_key_file;
int			sm_touch_slots;
int			sm_flush_interval;
int			sm_sweep_interval;
int			sm_sweep_pause;
char	   *sm_databases;
bool		sm_notify;
int			sm_redis_mode;
char	   *sm_redis_host;
int			sm_redis_port;
char	   *sm_redis_socket;
int			sm_redis_db;
char	   *sm_redis_user;
char	   *sm_redis_password_file;
int			sm_redis_timeout;
bool		sm_redis_tls;
char	   *sm_redis_ca_file;
int			sm_cache_ttl;
char	   *sm_shard;
const uint8 *sm_shard_buckets;
uint64		sm_shard_hash;

static const struct config_enum_entry on_limit_options[] = {
	{"evict_oldest", SM_LIMIT_EVICT_OLDEST, false},
	{"deny", SM_LIMIT_DENY, false},
	{NULL, 0, false}
};

static const struct config_enum_entry client_binding_options[] = {
	{"off", SM_BINDING_OFF, false},
	{"log", SM_BINDING_LOG, false},
	{"strict", SM_BINDING_STRICT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry revoke_commit_options[] = {
	{"local", SM_REVOKE_LOCAL, false},
	{"remote_apply", SM_REVOKE_REMOTE_APPLY, false},
	{NULL, 0, false}
};

static const struct config_enum_entry redis_mode_options[] = {
	{"off", SM_REDIS_OFF, false},
	{"async", SM_REDIS_ASYNC, false},
	{"strict", SM_REDIS_STRICT, false},
	{NULL, 0, false}
};

static const struct config_enum_entry event_partition_options[] = {
	{"day", SM_PARTITION_DAY, false},
	{"week", SM_PARTITION_WEEK, false},
	{"month", SM_PARTITION_MONTH, false},
	{NULL, 0, false}
};

static void define_lifetimes(void);
static void define_sessions(void);
static void define_clients(void);
static void define_storage(void);
static void define_workers(void);
static void define_redis(void);
static void define_seconds(const char *name, const char *short_desc,
						   const char *long_desc, int *variable,
						   int boot, int min);
static bool check_redis_mode(int *newval, void **extra, GucSource source);
static bool check_redis_tls(bool *newval, void **extra, GucSource source);
static bool check_shard(char **newval, void **extra, GucSource source);
static bool add_share(const char **text, uint8 *buckets);
static void free_extra(void *extra);
static void assign_shard(const char *newval, void *extra);

/*
 * Define the settings.  Called once, from _PG_init.
 */
void
sm_guc_init(void)
{
	define_lifetimes();
	define_sessions();
	define_clients();
	define_storage();
	define_workers();
	define_redis();

	/* nothing but the postmaster can set it, and only while preloading */
	if (process_shared_preload_libraries_in_progress)
		DefineCustomIntVariable("session_manager.touch_slots",
								"Number of times of last use that shared memory holds.",
								"When no slot is free, session_get writes to the table instead.",
								&sm_touch_slots,
								32768, 1024, 4 * 1024 * 1024,
								PGC_POSTMASTER, 0,
								NULL, NULL, NULL);

	MarkGUCPrefixReserved("session_manager");
}

static void
define_lifetimes(void)
{
	define_seconds("session_manager.ttl",
				   "Lifetime of a session that is not refreshed.",
				   "Applies if session_create is given none.",
				   &sm_ttl, 24 * 3600, 1);
	define_seconds("session_manager.max_lifetime",
				   "Absolute lifetime of a session, which no refresh extends.",
				   NULL,
				   &sm_max_lifetime, 7 * 24 * 3600, 1);
	define_seconds("session_manager.idle_timeout",
				   "Time without use after which a session ends.",
				   "0 disables the idle timeout.",
				   &sm_idle_timeout, 0, 0);
	define_seconds("session_manager.rotation_grace",
				   "Time for which a token that session_refresh has replaced works in any case.",
				   "Covers requests under way when the token is replaced. After that time, the token still works until its successor has been used.",
				   &sm_rotation_grace, 30, 0);
	define_seconds("session_manager.touch_interval",
				   "Accuracy of a session's time of last use.",
				   "session_get writes at most once per session in this time.",
				   &sm_touch_interval, 60, 0);
	define_seconds("session_manager.event_retention",
				   "Age at which events are dropped.",
				   "0 keeps events for ever.",
				   &sm_event_retention, 90 * 24 * 3600, 0);
	define_seconds("session_manager.revoked_retention",
				   "Minimum time for which a revoked session's row is kept.",
				   NULL,
				   &sm_revoked_retention, 0, 0);
}

static void
define_sessions(void)
{
	DefineCustomIntVariable("session_manager.max_sessions_per_user",
							"Number of live sessions that a user may have.",
							"0 disables the limit.",
							&sm_max_sessions_per_user,
							0, 0, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("session_manager.on_limit",
							 "Effect of a login beyond max_sessions_per_user.",
							 "evict_oldest ends the user's oldest session; deny refuses the login.",
							 &sm_on_limit,
							 SM_LIMIT_EVICT_OLDEST, on_limit_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.login_wait",
							"Time for which logins and revocations wait for each other's open transactions.",
							"Limits each wait of functions that end or read all sessions of a user, a tenant or the database, of logins that wait for these functions, and of session_key_retire. 0 waits without limit.",
							&sm_login_wait,
							5000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("session_manager.revoke_commit",
							 "What the commit of a transaction waits for that ends a session or replaces a token.",
							 "local: this server's disk; "
							 "remote_apply: also that the standbys named by synchronous_standby_names have applied it.",
							 &sm_revoke_commit,
							 SM_REVOKE_LOCAL, revoke_commit_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.revoke_commit_timeout",
							"Time for which revoke_commit = remote_apply waits for standbys.",
							"The transaction has then committed, and a warning says that a standby may not know of it. 0 waits without limit.",
							&sm_revoke_commit_timeout,
							5000, 0, INT_MAX,
							PGC_SUSET, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.max_data_size",
							"Size of the largest session data, as jsonb stores it.",
							NULL,
							&sm_max_data_size,
							64 * 1024, 64, 16 * 1024 * 1024,
							PGC_SUSET, GUC_UNIT_BYTE,
							NULL, NULL, NULL);
}

static void
define_clients(void)
{
	DefineCustomEnumVariable("session_manager.client_binding",
							 "Effect of a change of the client's network.",
							 "Networks are compared as /24 (IPv4) or /48 (IPv6). "
							 "log records the change; strict also refuses the session.",
							 &sm_client_binding,
							 SM_BINDING_OFF, client_binding_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("session_manager.new_device_events",
							 "Record logins from a network and a device that the user has not been seen with.",
							 NULL,
							 &sm_new_device_events,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.device_proof_lifetime",
							"Time for which a device's proof beside its session's token is valid.",
							"A stolen token alone is refused after this time.",
							&sm_device_proof_lifetime,
							300, 1, 86400,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.guessing_threshold",
							"Number of different wrong tokens from one network within ten minutes that counts as guessing.",
							"0 disables the counting.",
							&sm_guessing_threshold,
							100, 0, SM_MAX_GUESSING_THRESHOLD,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
}

static void
define_storage(void)
{
	DefineCustomIntVariable("session_manager.sweep_batch",
							"Number of sessions that the sweep takes at a time.",
							NULL,
							&sm_sweep_batch,
							1000, 1, 100000,
							PGC_SUSET, 0,
							NULL, NULL, NULL);
	DefineCustomEnumVariable("session_manager.event_partition",
							 "Time that one partition of session_events spans.",
							 NULL,
							 &sm_event_partition,
							 SM_PARTITION_MONTH, event_partition_options,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomBoolVariable("session_manager.redact_tokens",
							 "Mask session tokens in the server log.",
							 NULL,
							 &sm_redact_tokens,
							 true,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.key_file",
							   "File that holds the keys, one \"id:hex\" per line.",
							   "The server's user must own it, with mode 0600 or less, or root, with 0640 or less.",
							   &sm_key_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.shard",
							   "Share of the buckets that this server holds, as a list of part/parts or first-last bucket.",
							   "Empty means all of them, \"none\" none.",
							   &sm_shard,
							   "",
							   PGC_SIGHUP, 0,
							   check_shard, assign_shard, NULL);
}

static void
define_workers(void)
{
	DefineCustomIntVariable("session_manager.flush_interval",
							"Time for which times of last use stay in shared memory.",
							"A crash loses at most the uses of this time.",
							&sm_flush_interval,
							10, 1, 3600,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.sweep_interval",
							"Time between two passes of a worker through a database.",
							NULL,
							&sm_sweep_interval,
							60, 1, 24 * 3600,
							PGC_SIGHUP, GUC_UNIT_S,
							NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.sweep_pause",
							"Time that a worker waits between two batches of ended sessions.",
							NULL,
							&sm_sweep_pause,
							0, 0, 10000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.databases",
							   "Databases that workers serve, separated by commas.",
							   "Empty means every database that has the extension.",
							   &sm_databases,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomBoolVariable("session_manager.notify",
							 "Send a NOTIFY on channel session_revoked when a session is revoked or evicted.",
							 NULL,
							 &sm_notify,
							 false,
							 PGC_SUSET, 0,
							 NULL, NULL, NULL);
}

static void
define_redis(void)
{
	DefineCustomEnumVariable("session_manager.redis_mode",
							 "How commits keep the cache of sessions in Redis consistent.",
							 "strict: a revocation commits when no cache serves the session any more; "
							 "async: the cache stops serving it within three seconds; off: no cache.",
							 &sm_redis_mode,
							 SM_REDIS_OFF, redis_mode_options,
							 PGC_SIGHUP, 0,
							 check_redis_mode, NULL, NULL);
	DefineCustomStringVariable("session_manager.redis_host",
							   "Host of the Redis server.",
							   "An address, or a name that is resolved at each connection.",
							   &sm_redis_host,
							   "127.0.0.1",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.redis_port",
							"TCP port of the Redis server.",
							NULL,
							&sm_redis_port,
							6379, 1, 65535,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.redis_socket",
							   "Unix socket of the Redis server.",
							   "Empty means redis_host and redis_port.",
							   &sm_redis_socket,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.redis_db",
							"Number of the Redis database that holds the cache.",
							NULL,
							&sm_redis_db,
							1, 0, 16383,
							PGC_SIGHUP, 0,
							NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.redis_user",
							   "User name for the Redis server.",
							   "Empty means the default user.",
							   &sm_redis_user,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	DefineCustomStringVariable("session_manager.redis_password_file",
							   "File whose first line is the password for Redis.",
							   "The server's user must own it, with mode 0600 or less, or root, with 0640 or less.",
							   &sm_redis_password_file,
							   "",
							   PGC_SIGHUP, GUC_SUPERUSER_ONLY,
							   NULL, NULL, NULL);
	DefineCustomIntVariable("session_manager.redis_timeout",
							"Time after which a worker gives up on a Redis server that does not answer.",
							NULL,
							&sm_redis_timeout,
							1000, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS,
							NULL, NULL, NULL);
	DefineCustomBoolVariable("session_manager.redis_tls",
							 "Use TLS for the connection to the Redis server.",
							 NULL,
							 &sm_redis_tls,
							 false,
							 PGC_SIGHUP, 0,
							 check_redis_tls, NULL, NULL);
	DefineCustomStringVariable("session_manager.redis_ca_file",
							   "File of certificate authorities that are trusted to sign the certificate of the Redis server.",
							   "Empty means those that the system trusts.",
							   &sm_redis_ca_file,
							   "",
							   PGC_SIGHUP, 0,
							   NULL, NULL, NULL);
	define_seconds("session_manager.cache_ttl",
				   "Time for which a session may be served from the cache.",
				   "With an idle timeout, a quarter of that timeout if it is less.",
				   &sm_cache_ttl, 300, 1);
}

static void
define_seconds(const char *name, const char *short_desc, const char *long_desc,
			   int *variable, int boot, int min)
{
	DefineCustomIntVariable(name, short_desc, long_desc, variable,
							boot, min, MAX_SECONDS,
							PGC_SUSET, GUC_UNIT_S,
							NULL, NULL, NULL);
}

/* Without the library that speaks to Redis there is no cache. */
static bool
check_redis_mode(int *newval, void **extra, GucSource source)
{
#ifndef USE_REDIS
	if (*newval != SM_REDIS_OFF)
	{
		GUC_check_errdetail("session_manager was built without hiredis.");
		GUC_check_errhint("Install hiredis and build session_manager again.");
		return false;
	}
#endif
	return true;
}

static bool
check_redis_tls(bool *newval, void **extra, GucSource source)
{
#ifndef HAVE_HIREDIS_SSL
	if (*newval)
	{
		GUC_check_errdetail("session_manager was built without hiredis_ssl.");
		GUC_check_errhint("Build session_manager with hiredis 1.0 or later and its TLS support, or use a tunnel.");
		return false;
	}
#endif
	return true;
}

/*
 * Empty, "none", or a list of shares, each part/parts or first-last bucket, of
 * which no two have a bucket in common.
 */
static bool
check_shard(char **newval, void **extra, GucSource source)
{
	const char *text = *newval;
	uint8	   *buckets;

	if (*text == '\0')
		return true;

	/* freed by guc.c with free(), as extra always is */
#if PG_VERSION_NUM >= 160000
	buckets = guc_malloc(LOG, N_BUCKETS / 8);
#else
	buckets = malloc(N_BUCKETS / 8);
#endif
	if (buckets == NULL)
		return false;
	memset(buckets, 0, N_BUCKETS / 8);
	if (strcmp(text, "none") != 0)
	{
		do
		{
			if (!add_share(&text, buckets))
			{
				free_extra(buckets);
				return false;
			}
		} while (*text++ == ',');
	}
	*extra = buckets;
	return true;
}

/*
 * Read one share of a list, up to the comma or the end behind it, and add its
 * buckets.
 */
static bool
add_share(const char **text, uint8 *buckets)
{
	const char *start = *text + strspn(*text, " ");
	int			len = strcspn(start, ",");
	int			a;
	int			b;
	int			first;
	int			last;
	int			used = 0;
	char		sign;

	*text = start + len;
	while (len > 0 && start[len - 1] == ' ')
		len--;
	/* sscanf would skip blanks, and read signs */
	if ((int) strspn(start, "0123456789/-") < len ||
		sscanf(start, "%5d%c%5d%n", &a, &sign, &b, &used) != 3 ||
		(sign != '/' && sign != '-') ||
		used != len || a < 0 || b < 0)
	{
		GUC_check_errdetail("\"%.*s\" is not a share: write part/parts, such as \"1/4\", or first-last bucket, such as \"0-16383\", a list of these, or \"none\".",
							len, start);
		return false;
	}
	if (sign == '/')
	{
		if (a < 1 || a > b || b > N_BUCKETS)
		{
			GUC_check_errdetail("In \"%.*s\", 1 <= part <= parts <= %d does not hold.",
								len, start, N_BUCKETS);
			return false;
		}
		/* those for which floor(bucket * parts / 65536) + 1 is the part */
		first = (int) (((int64) (a - 1) * N_BUCKETS + b - 1) / b);
		last = (int) (((int64) a * N_BUCKETS + b - 1) / b) - 1;
	}
	else
	{
		if (a > b || b >= N_BUCKETS)
		{
			GUC_check_errdetail("In \"%.*s\", 0 <= first <= last <= %d does not hold.",
								len, start, N_BUCKETS - 1);
			return false;
		}
		first = a;
		last = b;
	}
	for (int bucket = first; bucket <= last; bucket++)
	{
		if (buckets[bucket / 8] & (1 << bucket % 8))
		{
			GUC_check_errdetail("Bucket %d of \"%.*s\" is in another share of the list as well.",
								bucket, len, start);
			return false;
		}
		buckets[bucket / 8] |= 1 << bucket % 8;
	}
	return true;
}

static void
free_extra(void *extra)
{
#if PG_VERSION_NUM >= 160000
	guc_free(extra);
#else
	free(extra);
#endif
}

static void
assign_shard(const char *newval, void *extra)
{
	sm_shard_buckets = extra;
	sm_shard_hash = hash_bytes_extended((const unsigned char *) newval,
										strlen(newval), 0);
}
