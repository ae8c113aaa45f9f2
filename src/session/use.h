/*-------------------------------------------------------------------------
 *
 * use.h
 *	  A use of a session by its holder: may it be from there, and what does
 *	  it leave behind?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_USE_H
#define SM_USE_H

#include "postgres.h"

#include "guc.h"
#include "session/authenticate.h"
#include "session/client.h"
#include "session/store.h"

extern bool sm_client_check(const SmSchema *schema, const SmToken *token,
							const SmSession *session, const SmClient *client,
							bool may_move, bool *moved);
extern bool sm_can_touch(void);
extern int64 sm_cached_max_age(void);
extern bool sm_may_go_unnoticed(const SmSession *session);
extern bool sm_touch_due(const SmSession *session, const SmToken *token,
						 TimestampTz now);
extern void sm_touch_session(SmScan *scan, const SmToken *token,
							 TimestampTz seen_at, bool moved,
							 const SmClient *client);
extern void sm_mark_used(SmChanges *changes, const SmSession *session,
						 bool current, TimestampTz now);

/*
 * Apply session_manager.client_binding.  False if the session must not be
 * used from this address.  *moved is set if its row should take the address
 * over, which the caller allows with "may_move".
 */
static inline bool
sm_client_allowed(const SmSchema *schema, const SmToken *token,
				  const SmSession *session, const SmClient *client,
				  bool may_move, bool *moved)
{
	*moved = false;
	return sm_client_binding == SM_BINDING_OFF ||
		sm_client_check(schema, token, session, client, may_move, moved);
}

#endif							/* SM_USE_H */
