/*-------------------------------------------------------------------------
 *
 * server.c
 *	  What the Redis server says of itself: for session_info, which warns of
 *	  what endangers the cache.
 *
 * A server that does not allow INFO or CONFIG is used without these.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "cache/link.h"
#include "cache/server.h"
#include "shared.h"

#define INTERVAL_US		INT64CONST(10000000)

static struct
{
	int64		inquire_at;
	char		run_id[64];		/* of the server that was met last */
	int64		evicted;		/* keys that it had evicted then */
}			server;

static void info_answered(const SmRequest *request, const SmRedisAnswer *answer);
static void save_answered(const SmRequest *request, const SmRedisAnswer *answer);
static void warn_of(const char *warning);
static int64 find_number(const char *info, const char *name);
static bool find_field(const char *info, const char *name, char *value,
					   size_t size);

/*
 * Ask the server about itself.
 */
void
sm_server_inquire(void)
{
	sm_link_send(info_answered, NULL, 0, "INFO", NULL);
	sm_link_send(save_answered, NULL, 0, "CONFIG", "GET", "save", NULL);
	server.inquire_at = sm_clock() + INTERVAL_US;
}

/*
 * The same, every now and then.
 */
void
sm_server_inquire_again(int64 now)
{
	if (now >= server.inquire_at)
		sm_server_inquire();
}

static void
info_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	SmCache    *cache = sm_cache;
	const char *info = answer->text;
	char		version[32] = "?";
	char		id[sizeof(server.run_id)] = "";
	char		role[32] = "";
	char		value[64];
	bool		another;
	int64		evicted;

	if (answer->kind != SM_REDIS_TEXT)
		return;
	(void) find_field(info, "redis_version", version, sizeof(version));
	(void) find_field(info, "run_id", id, sizeof(id));
	(void) find_field(info, "role", role, sizeof(role));
	another = (server.run_id[0] != '\0' && strcmp(server.run_id, id) != 0);
	/* what it evicted before it was met is not counted */
	evicted = find_number(info, "evicted_keys");
	if (strcmp(server.run_id, id) == 0 && evicted > server.evicted)
		sm_count_many(SM_CACHE_EVICTED, evicted - server.evicted);
	server.evicted = evicted;
	strlcpy(server.run_id, id, sizeof(server.run_id));

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	snprintf(cache->server, sizeof(cache->server), "Redis %s, %s", version,
			 strcmp(role, "master") == 0 ? "primary" : role);
	cache->warnings[0] = '\0';
	cache->restarts += another;
	cache->memory_used = find_number(info, "used_memory");
	cache->memory_limit = find_number(info, "maxmemory");
	LWLockRelease(sm_shared->cache_lock);

	if (find_field(info, "aof_enabled", value, sizeof(value)) && strcmp(value, "1") == 0)
		warn_of("Redis keeps an append-only file: after a restart it may serve revoked sessions for two seconds");
	if (find_number(info, "maxmemory") != 0 &&
		find_field(info, "maxmemory_policy", value, sizeof(value)) &&
		strcmp(value, "noeviction") == 0)
		warn_of("maxmemory-policy is noeviction: when Redis is full, it refuses tombstones");
	if (role[0] != '\0' && strcmp(role, "master") != 0)
		sm_link_drop("the server is a replica, not the primary");
	else if (find_field(info, "cluster_enabled", value, sizeof(value)) &&
			 strcmp(value, "1") == 0)
		sm_link_drop("the server belongs to a Redis Cluster, which cannot keep the cache");
}

static void
save_answered(const SmRequest *request, const SmRedisAnswer *answer)
{
	if (answer->kind == SM_REDIS_ARRAY && answer->text[0] != '\0' &&
		strcmp(answer->text, "save") != 0)
		warn_of("Redis saves to disk: after a restart it may serve revoked sessions for two seconds");
}

static void
warn_of(const char *warning)
{
	char	   *warnings = sm_cache->warnings;
	size_t		size = sizeof(sm_cache->warnings);

	LWLockAcquire(sm_shared->cache_lock, LW_EXCLUSIVE);
	if (warnings[0] != '\0')
		strlcat(warnings, "; ", size);
	strlcat(warnings, warning, size);
	LWLockRelease(sm_shared->cache_lock);
}

/* A number of INFO; 0 if it is not there. */
static int64
find_number(const char *info, const char *name)
{
	char		value[24];

	return find_field(info, name, value, sizeof(value)) ?
		strtoi64(value, NULL, 10) : 0;
}

/* A line "name:value" of INFO. */
static bool
find_field(const char *info, const char *name, char *value, size_t size)
{
	const char *line = info;
	size_t		name_len = strlen(name);

	while (line != NULL)
	{
		if (*line == '\n')
			line++;
		if (strncmp(line, name, name_len) == 0 && line[name_len] == ':')
		{
			size_t		n = strcspn(line + name_len + 1, "\r\n");

			sm_copy_ascii(value, line + name_len + 1, Min(size, n + 1));
			return true;
		}
		line = strchr(line, '\n');
	}
	return false;
}
