/*-------------------------------------------------------------------------
 *
 * events.h
 *	  The audit trail.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_EVENTS_H
#define SM_EVENTS_H

#include "postgres.h"

#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "schema.h"
#include "session/client.h"
#include "session/store.h"

typedef enum SmEventType
{
	SM_EVENT_CREATED,
	SM_EVENT_REFRESHED,
	SM_EVENT_ROTATED,
	SM_EVENT_UPDATED,
	SM_EVENT_ELEVATED,
	SM_EVENT_BIND_FAILED,
	SM_EVENT_CLIENT_CHANGED,
	SM_EVENT_INVALIDATED,
	SM_EVENT_EVICTED,
	SM_EVENT_EXPIRED,
	SM_EVENT_IDLE,
	SM_EVENT_ACTOR_ENDED,
	SM_EVENT_IMPERSONATED,
	SM_EVENT_TOKEN_REUSED,
	SM_EVENT_REJECTED,
	SM_EVENT_CORRUPT,
	SM_EVENT_ERASED,
	SM_EVENT_KEY_ADDED,
	SM_EVENT_KEY_ACTIVATED,
	SM_EVENT_KEY_RETIRED,
	SM_EVENT_KEY_REVOKED,
	SM_EVENT_ISSUER_TRUSTED,
	SM_EVENT_ISSUER_DISTRUSTED,
	SM_EVENT_NEW_DEVICE,
	SM_EVENT_TOKEN_GUESSING,
	SM_EVENT_DEVICE_BOUND,
	SM_EVENT_DEVICE_PROOF_SKIPPED,
	SM_EVENT_DEVICE_PROOF_FAILED
} SmEventType;

/* An event; NULL stands for null. */
typedef struct SmEvent
{
	SmEventType type;
	TimestampTz at;				/* 0 for now */
	const pg_uuid_t *session_id;
	text	   *user_id;
	text	   *tenant_id;
	text	   *actor_id;		/* named in the detail */
	SmClient	client;
	Jsonb	   *detail;
} SmEvent;

/* Inserts many events into one partition after another. */
typedef struct SmEventWriter SmEventWriter;

extern const char *sm_event_name(SmEventType type);
extern const char *sm_event_severity(const char *name);
extern char *sm_events_are_critical(void);
extern SmEventWriter *sm_events_begin(const SmSchema *schema);
extern void sm_events_add(SmEventWriter *writer, const SmEvent *event);
extern void sm_events_end(SmEventWriter *writer);

extern void sm_event_of(SmEvent *event, const SmSession *session);
extern void sm_event(const SmSchema *schema, const SmEvent *event);
extern void sm_session_event(const SmSchema *schema, SmEventType type,
							 const SmSession *session,
							 const SmClient *client, Jsonb *detail);

extern Oid	sm_events_route(Relation parent, TimestampTz at,
							TimestampTz *from, TimestampTz *until);

/* Builds an event's detail, a flat object. */
extern JsonbParseState *sm_detail_begin(void);
extern void sm_detail_text(JsonbParseState **detail, const char *key,
						   const text *value);
extern void sm_detail_cstring(JsonbParseState **detail, const char *key,
							  const char *value);
extern void sm_detail_int(JsonbParseState **detail, const char *key,
						  int64 value);
extern Jsonb *sm_detail_end(JsonbParseState **detail);
extern bool sm_detail_has(Jsonb *detail, const char *key);

#endif							/* SM_EVENTS_H */
