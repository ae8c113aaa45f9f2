/*-------------------------------------------------------------------------
 *
 * lifecycle.h
 *	  What makes, changes, renews and ends a session.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_LIFECYCLE_H
#define SM_LIFECYCLE_H

#include "postgres.h"

#include "compat.h"
#include "session/authenticate.h"
#include "session/client.h"
#include "session/events.h"
#include "session/store.h"

/* SQLSTATE SM001: session_version_conflict */
#define ERRCODE_SM_VERSION_CONFLICT	MAKE_SQLSTATE('S', 'M', '0', '0', '1')
/* SQLSTATE SM002: session_limit_reached */
#define ERRCODE_SM_LIMIT_REACHED	MAKE_SQLSTATE('S', 'M', '0', '0', '2')
/* SQLSTATE SM004: session_data_corrupt */
#define ERRCODE_SM_DATA_CORRUPT		MAKE_SQLSTATE('S', 'M', '0', '0', '4')

/* SQLSTATE SM006: session_actor_not_live */
#define ERRCODE_SM_ACTOR_NOT_LIVE	MAKE_SQLSTATE('S', 'M', '0', '0', '6')

/* What a session is created from, once the user has been authenticated. */
typedef struct SmLogin
{
	text	   *user_id;
	text	   *tenant_id;
	Jsonb	   *data;
	Jsonb	   *auth;
	int64		ttl;			/* microseconds; 0: the default */
	int64		max_lifetime;	/* likewise */
	int64		idle_timeout;	/* 0: none of its own */
	text	   *actor_token;	/* of the session of who acts as the user, or
								 * NULL */
	SmClient	client;
} SmLogin;

/* What session_refresh is asked for. */
typedef struct SmRefresh
{
	bool		rotate;
	bool		has_ttl;
	int64		ttl;			/* microseconds */
	SmClient	client;
} SmRefresh;

/*
 * The result of a renewal.  The caller initializes it to SM_ENDED, which it
 * keeps unless the session is live or a replay of its token was detected.
 */
typedef struct SmRenewal
{
	const char *status;
	bool		known;			/* whose it is: false if it has ended */
	pg_uuid_t	session_id;
	text	   *user_id;
	text	   *token;			/* NULL unless there is a new one */
	TimestampTz expires_at;		/* 0 unless the session lives */
	TimestampTz absolute_expires_at;
} SmRenewal;

#define SM_ENDED	{.status = "ended"}

/* The status of a live session whose device's proof is missing. */
#define SM_STATUS_UNPROVED	"proof_required"

/* A change of a session's data. */
typedef struct SmPatch
{
	Jsonb	   *patch;
	bool		replace;		/* the patch is the new data */
	bool		used;			/* its holder does it ... */
	bool		current;		/* ... with the current token */
} SmPatch;

/* The data after it. */
typedef struct SmPatched
{
	int32		version;
	Jsonb	   *data;
} SmPatched;

extern text *sm_log_in(const SmSchema *schema, const SmLogin *login,
					   SmSession *session, bool *new_device);
extern bool sm_update(const SmSchema *schema, SmToken *token, SmPatch *patch,
					  const int32 *expected_version, SmPatched *patched);
extern void sm_refresh(const SmSchema *schema, SmToken *token,
					   const SmRefresh *refresh, SmRenewal *renewal);
extern void sm_elevate(const SmSchema *schema, SmToken *token, Jsonb *auth,
					   Jsonb *data, SmRenewal *renewal);
extern void sm_switch_tenant(const SmSchema *schema, SmToken *token,
							 text *tenant_id, Jsonb *data, SmRenewal *renewal);
extern text *sm_invalidate(const SmSchema *schema, SmToken *token, text *reason);

extern text *sm_replace_token(SmScan *scan, SmChanges *changes,
							  TimestampTz now);
extern void sm_check_size(const Jsonb *object, const char *name);
extern void sm_patch_session(SmScan *scan, const SmPatch *patch,
							 SmPatched *patched);
extern void sm_end_session(SmScan *scan, SmEventWriter *events,
						   SmEventType type, text *reason);
extern void sm_warn_corrupt(const SmSession *session);
pg_noreturn extern void sm_report_corrupt(const SmSchema *schema,
										  const SmSession *session);

#endif							/* SM_LIFECYCLE_H */
