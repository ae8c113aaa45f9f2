/*-------------------------------------------------------------------------
 *
 * seen.h
 *	  Has a user been seen with a client's network, or with its device?
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SEEN_H
#define SM_SEEN_H

#include "postgres.h"

#include "schema.h"
#include "session/client.h"
#include "session/device.h"
#include "session/store.h"
#include "utils/jsonb.h"

/* What has been found out about the client of a login. */
typedef struct SmSeen
{
	SmClient	client;
	bool		matters;		/* there is something to find out */
	bool		before;			/* the user has been seen, with any client */
	bool		familiar;		/* with this network or this device */
	int			rows_left;		/* of user_sessions, to be looked at */
	int			events_left;
	SmNetwork	network;		/* if there is an address */
	SmDevice	device;			/* once "parsed" */
	bool		parsed;
} SmSeen;

extern void sm_seen_init(void);
extern void sm_seen_begin(SmSeen *seen, const SmClient *client);
extern void sm_seen_session(SmSeen *seen, const SmSession *session);
extern void sm_seen_sessions(SmSeen *seen, const SmSchema *schema,
							 text *user_id);
extern bool sm_seen_is_new(SmSeen *seen, const SmSchema *schema,
						   text *user_id);
extern Jsonb *sm_seen_detail(SmSeen *seen);

#endif							/* SM_SEEN_H */
