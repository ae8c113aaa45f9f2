/*-------------------------------------------------------------------------
 *
 * binding.c
 *	  Binds a session to the key of a device, and lets the device prove that it
 *	  has it.
 *
 * The functions here need no proof, because a browser gets one through them.
 * They take the answer to a challenge instead, whose signature the application
 * has checked against the key that this extension keeps.
 *
 * A session is bound only once: otherwise somebody who has stolen its token could
 * bind it again, to a device of their own.  Binding also replaces the token.  If
 * somebody who can write to the table puts back a copy of the row from before the
 * binding, the new token does not work in it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "guc.h"
#include "session/binding.h"
#include "session/device_key.h"
#include "session/use.h"

static bool find_to_write(SmScan *scan, const SmSchema *schema, SmToken *token);
static void bind_device(SmScan *scan, SmToken *token, Jsonb *key,
						TimestampTz issued_at, const SmClient *client,
						SmDevice *device);
static void describe(const SmSchema *schema, const SmSession *session,
					 SmDevice *device);

/*
 * What the device of a live session is to sign, now or later; NULL if the token
 * is not one of a live session.
 */
text *
sm_challenge(const SmSchema *schema, SmToken *token)
{
	SmScan		scan;
	text	   *challenge = NULL;

	if (sm_find_live_unproved(&scan, schema, token, AccessShareLock,
							  SM_EVENT_REJECTED, &sm_no_client) == SM_LOOKUP_LIVE)
		challenge = sm_make_challenge(schema, &scan.session,
									  GetCurrentTimestamp());
	sm_scan_end(&scan);
	return challenge;
}

/*
 * Bind a live session to a device that has answered a challenge.
 *
 * Only the current token will do, as for sm_elevate.
 */
void
sm_bind_device(const SmSchema *schema, SmToken *token, Jsonb *key,
			   const text *challenge, const SmClient *client,
			   SmDevice *device)
{
	SmScan		scan;
	TimestampTz issued_at;

	if (find_to_write(&scan, schema, token))
	{
		if (scan.session.device_binding_id != NULL)
			device->status = "already_bound";
		else if (token->match != SM_MATCH_CURRENT)
			device->status = "already_rotated";
		else if (!sm_challenge_holds(schema, &scan.session, challenge,
									 GetCurrentTimestamp(), &issued_at))
			device->status = "bad_challenge";
		else
			bind_device(&scan, token, key, issued_at, client, device);
	}
	sm_scan_end(&scan);
}

/*
 * Take the answer to a challenge for a proof.
 */
void
sm_prove_device(const SmSchema *schema, SmToken *token, const text *challenge,
				SmDevice *device)
{
	SmScan		scan;
	SmSession  *session = &scan.session;
	TimestampTz now;
	TimestampTz issued_at;

	if (find_to_write(&scan, schema, token))
	{
		now = GetCurrentTimestamp();
		if (session->device_binding_id == NULL)
			device->status = "not_bound";
		else if (!sm_challenge_holds(schema, session, challenge, now, &issued_at))
			device->status = "bad_challenge";
		else
		{
			SmChanges	changes = {0};

			device->status = "proved";
			session->device_proved_at = issued_at;
			describe(schema, session, device);
			device->proof = sm_make_proof(schema, session, now);
			sm_change(&changes, Anum_device_proved_at, TimestampTzGetDatum(issued_at));
			sm_scan_update(&scan, &changes);
			sm_count(SM_DEVICE_PROOFS);
		}
	}
	sm_scan_end(&scan);
}

/*
 * The device of a live session; false if the session is not live, or not bound
 * to one.
 */
bool
sm_find_device(const SmSchema *schema, SmToken *token, SmDevice *device)
{
	SmScan		scan;
	bool		bound;

	bound = sm_find_live_unproved(&scan, schema, token, AccessShareLock,
								  SM_EVENT_REJECTED, &sm_no_client) == SM_LOOKUP_LIVE &&
		scan.session.device_binding_id != NULL;
	if (bound)
		describe(schema, &scan.session, device);
	sm_scan_end(&scan);
	return bound;
}

/*
 * Record that the device of a live session sent what is no proof, or that its
 * browser said why it sends none.  False if the session is not live, or not
 * bound.
 */
bool
sm_report_device(const SmSchema *schema, SmToken *token,
				 const SmDeviceReport *report)
{
	SmScan		scan;
	bool		bound = false;

	if (find_to_write(&scan, schema, token) &&
		scan.session.device_binding_id != NULL)
	{
		JsonbParseState *detail = sm_detail_begin();

		bound = true;
		sm_detail_text(&detail, "cause", report->cause);
		sm_session_event(schema,
						 report->skipped ? SM_EVENT_DEVICE_PROOF_SKIPPED :
						 SM_EVENT_DEVICE_PROOF_FAILED,
						 &scan.session, &report->client, sm_detail_end(&detail));
		sm_count(report->skipped ? SM_DEVICE_PROOFS_SKIPPED : SM_DEVICE_PROOFS_FAILED);
	}
	sm_scan_end(&scan);
	return bound;
}

/*
 * Go to the live session of a token, and lock its row.  The scan is open
 * afterwards in every case.
 */
static bool
find_to_write(SmScan *scan, const SmSchema *schema, SmToken *token)
{
	return sm_find_live_unproved(scan, schema, token, RowExclusiveLock,
								 SM_EVENT_REJECTED, &sm_no_client) == SM_LOOKUP_LIVE &&
		sm_lock_live(scan, token) &&
		sm_token_works(&scan->session, token->match, GetCurrentTimestamp());
}

/* Bind the live session that the scan stands on and has locked. */
static void
bind_device(SmScan *scan, SmToken *token, Jsonb *key, TimestampTz issued_at,
			const SmClient *client, SmDevice *device)
{
	const SmSchema *schema = scan->schema;
	SmSession  *session = &scan->session;
	SmContent	content;
	SmChanges	changes = {0};
	JsonbParseState *detail = sm_detail_begin();
	pg_uuid_t	binding_id;
	TimestampTz now;
	int32		key_id;

	if (!sm_session_open(schema, session, &content))
		sm_report_corrupt(schema, session);
	content.device_key = key;
	now = GetCurrentTimestamp();
	sm_random(binding_id.data, sizeof(binding_id.data));
	session->device_binding_id = &binding_id;
	session->device_bound_at = now;
	session->device_proved_at = issued_at;

	sm_change(&changes, Anum_sealed_data,
			  sm_session_seal(schema, session, &content, &key_id));
	sm_change(&changes, Anum_key_id, Int32GetDatum(key_id));
	sm_change(&changes, Anum_device_binding_id, UUIDPGetDatum(&binding_id));
	sm_change(&changes, Anum_device_bound_at, TimestampTzGetDatum(now));
	sm_change(&changes, Anum_device_proved_at, TimestampTzGetDatum(issued_at));
	sm_mark_used(&changes, session, true, now);
	device->token = sm_replace_token(scan, &changes, now);

	device->status = "bound";
	device->session_id = *session->session_id;
	device->user_id = DatumGetTextPCopy(PointerGetDatum(session->user_id));
	device->binding_id = binding_id;
	device->key = key;
	device->thumbprint = sm_device_key_thumbprint(key);
	device->bound_at = now;
	device->proved_at = issued_at;
	device->proof = sm_make_proof(schema, session, now);

	sm_detail_text(&detail, "thumbprint", device->thumbprint);
	sm_session_event(schema, SM_EVENT_DEVICE_BOUND, session, client,
					 sm_detail_end(&detail));
	sm_scan_update(scan, &changes);
	sm_count(SM_DEVICES_BOUND);
}

/* Say what a session is bound to, in memory that outlives the scan. */
static void
describe(const SmSchema *schema, const SmSession *session, SmDevice *device)
{
	SmContent	content;

	if (sm_session_open(schema, session, &content) && content.device_key != NULL)
		device->thumbprint = sm_device_key_thumbprint(content.device_key);
	if (device->thumbprint == NULL)
		sm_report_corrupt(schema, session);
	device->session_id = *session->session_id;
	device->user_id = DatumGetTextPCopy(PointerGetDatum(session->user_id));
	device->binding_id = *session->device_binding_id;
	device->key = DatumGetJsonbPCopy(JsonbPGetDatum(content.device_key));
	device->bound_at = session->device_bound_at;
	device->proved_at = session->device_proved_at;
	sm_wipe(VARDATA(content.data), VARSIZE(content.data) - VARHDRSZ);
}
