/*-------------------------------------------------------------------------
 *
 * schema.h
 *	  The extension's own relations: where they are and what their columns
 *	  are called in C.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SCHEMA_H
#define SM_SCHEMA_H

#include "postgres.h"

typedef struct SmSchema
{
	Oid			namespace;
	Oid			sessions;
	Oid			sessions_pkey;
	Oid			sessions_user_idx;
	Oid			sessions_sweep_idx;
	Oid			sessions_tenant_idx;
	Oid			events;
	Oid			events_default;
	Oid			events_seq;
	Oid			keys;
	Oid			installation;
	Oid			outbox;
	Oid			issuers;
} SmSchema;

/* columns of user_sessions */
enum
{
	Anum_session_id = 1,
	Anum_created_at,
	Anum_authenticated_at,
	Anum_absolute_expires_at,
	Anum_sweep_at,
	Anum_ttl,
	Anum_last_seen_at,
	Anum_expires_at,
	Anum_version,
	Anum_key_id,
	Anum_verifier_key_id,
	Anum_state_mac,
	Anum_revoked_at,
	Anum_revoked_reason,
	Anum_rotated_at,
	Anum_successor_used_at,
	Anum_previous_valid_until,
	Anum_previous_key_id,
	Anum_device_proved_at,
	Anum_previous_verifier,
	Anum_verifier,
	Anum_sealed_data,
	Anum_user_id,
	Anum_tenant_id,
	Anum_idle_timeout,
	Anum_actor_session_id,
	Anum_actor_id,
	Anum_device_binding_id,
	Anum_device_bound_at,
	Anum_ip,
	Anum_user_agent,
	Natts_user_sessions = Anum_user_agent
};

/* columns of session_events */
enum
{
	Anum_event_event_id = 1,
	Anum_event_at,
	Anum_event_session_id,
	Anum_event_user_id,
	Anum_event_tenant_id,
	Anum_event_event,
	Anum_event_ip,
	Anum_event_user_agent,
	Anum_event_detail,
	Natts_session_events = Anum_event_detail
};

/* columns of session_keys */
enum
{
	Anum_keys_key_id = 1,
	Anum_keys_state,
	Anum_keys_check_value,
	Anum_keys_created_at,
	Anum_keys_activated_at,
	Anum_keys_retired_at,
	Anum_keys_revoked_at,
	Anum_keys_resealed_at,
	Natts_session_keys = Anum_keys_resealed_at
};

/* columns of session_installation */
enum
{
	Anum_installation_singleton = 1,
	Anum_installation_installation_id,
	Anum_installation_created_at,
	Natts_session_installation = Anum_installation_created_at
};

/* columns of session_outbox */
enum
{
	Anum_outbox_session_id = 1,
	Anum_outbox_at,
	Natts_session_outbox = Anum_outbox_at
};

/* columns of session_issuers */
enum
{
	Anum_issuers_public_key = 1,
	Anum_issuers_issuer,
	Anum_issuers_added_at,
	Anum_issuers_key_id,
	Anum_issuers_mac,
	Natts_session_issuers = Anum_issuers_mac
};

extern void sm_schema_init(void);
extern const SmSchema *sm_schema_of_function(Oid function);
extern const SmSchema *sm_schema_in(Oid namespace);

/* quoted "schema.relation", for SQL text */
extern char *sm_schema_qualify(const SmSchema *schema, const char *relname);

#endif							/* SM_SCHEMA_H */
