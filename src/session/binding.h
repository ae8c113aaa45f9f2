/*-------------------------------------------------------------------------
 *
 * binding.h
 *	  Binds a session to the key of a device, and lets the device prove that it
 *	  has it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_BINDING_H
#define SM_BINDING_H

#include "postgres.h"

#include "session/authenticate.h"
#include "session/client.h"
#include "session/lifecycle.h"
#include "session/proof.h"

/*
 * The device of a session.  The caller initializes status; the rest is set only
 * if the session is live and bound.
 */
typedef struct SmDevice
{
	const char *status;
	pg_uuid_t	session_id;
	text	   *user_id;
	pg_uuid_t	binding_id;
	Jsonb	   *key;
	text	   *thumbprint;
	TimestampTz bound_at;
	TimestampTz proved_at;
	SmProof		proof;			/* text is NULL unless one was made */
	text	   *token;			/* NULL unless there is a new one */
} SmDevice;

/* What a device did not do, as the application reports it. */
typedef struct SmDeviceReport
{
	bool		skipped;		/* the browser said why it proves nothing;
								 * else what it sent as a proof was none */
	text	   *cause;
	SmClient	client;
} SmDeviceReport;

extern text *sm_challenge(const SmSchema *schema, SmToken *token);
extern void sm_bind_device(const SmSchema *schema, SmToken *token, Jsonb *key,
						   const text *challenge, const SmClient *client,
						   SmDevice *device);
extern void sm_prove_device(const SmSchema *schema, SmToken *token,
							const text *challenge, SmDevice *device);
extern bool sm_find_device(const SmSchema *schema, SmToken *token,
						   SmDevice *device);
extern bool sm_report_device(const SmSchema *schema, SmToken *token,
							 const SmDeviceReport *report);

#endif							/* SM_BINDING_H */
