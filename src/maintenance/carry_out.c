/*-------------------------------------------------------------------------
 *
 * carry_out.c
 *	  Carries out findings of transactions that rolled back: records the
 *	  event, and ends the session if the finding says so.
 *
 * Each in a transaction of its own, so that no lock is held while another is
 * waited for.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

#include "batch.h"
#include "maintenance/carry_out.h"
#include "maintenance/contain.h"
#include "session/authenticate.h"
#include "session/finding.h"
#include "session/guess.h"
#include "session/lifecycle.h"

/* A finding that is being carried out. */
typedef struct Carried
{
	const SmSchema *schema;
	const SmFinding *finding;
	bool		done;			/* or somebody is writing to the session */
} Carried;

/* What is still to be done about a finding. */
typedef enum Remains
{
	REMAINS_ALL,
	REMAINS_NOTHING,
	REMAINS_LATER				/* somebody is writing to the session */
} Remains;

static void carry_out_one(void *arg);
static bool carry_out(const SmSchema *schema, const SmFinding *finding);
static Remains what_remains(const SmSchema *schema, SmScan *scan, bool found);
static void record(const SmSchema *schema, const SmFinding *finding,
				   const SmSession *session);

/*
 * Carry out the findings of this database that are due.
 */
void
sm_carry_out(SmPass *pass)
{
	SmFinding	finding;

	while (sm_finding_peek(MyDatabaseId, &finding))
	{
		Carried		carried = {
			.schema = sm_pass_batch(pass, "recording findings of rolled-back transactions"),
			.finding = &finding
		};
		ErrorData  *error;

		if (carried.schema == NULL)
			break;
		error = sm_try(carry_out_one, &carried);
		if (error != NULL)
			sm_failed(SM_STEP_FINDINGS,
					  psprintf("session_manager could not record \"%s\" for session %s",
							   sm_event_name(finding.type),
							   DatumGetCString(DirectFunctionCall1(uuid_out,
																   UUIDPGetDatum(&finding.session_id)))),
					  error);
		sm_batch_end();
		if (error == NULL && carried.done)
			sm_finding_done(&finding);
		else
			sm_finding_later(&finding, error != NULL);
		if ((error == NULL && !carried.done) || sm_pass_is_over(pass))
		{
			/* the next pass goes on */
			pg_atomic_write_u32(&sm_database->wanted, 1);
			break;
		}
	}
}

static void
carry_out_one(void *arg)
{
	Carried    *carried = arg;

	carried->done = carry_out(carried->schema, carried->finding);
}

/*
 * Record a finding, and end its session if it says so.  False if somebody is
 * writing to the session.
 */
static bool
carry_out(const SmSchema *schema, const SmFinding *finding)
{
	SmScan		scan;
	bool		found;
	Remains		remains = REMAINS_ALL;

	sm_scan_by_id(&scan, schema, finding->session_id.data, RowExclusiveLock);
	found = sm_scan_next(&scan);
	if (finding->revoke)
		remains = what_remains(schema, &scan, found);
	if (remains == REMAINS_ALL)
	{
		/* as sm_event_of_unlocked does */
		found = found && sm_scan_lock(&scan, LockTupleKeyShare, LockWaitSkip);
		record(schema, finding, found ? &scan.session : NULL);
		if (finding->revoke)
			sm_end_session(&scan, NULL, SM_EVENT_INVALIDATED,
						   cstring_to_text(sm_event_name(finding->type)));
	}
	sm_scan_end(&scan);
	return remains != REMAINS_LATER;
}

/*
 * What remains to be done about the session of a finding that ends it: nothing
 * if somebody has ended it since.
 */
static Remains
what_remains(const SmSchema *schema, SmScan *scan, bool found)
{
	bool		locked;

	if (!found || scan->session.revoked)
		return REMAINS_NOTHING;
	locked = sm_scan_lock(scan, LockTupleNoKeyExclusive, LockWaitSkip);
	if (scan->session.revoked)
		return REMAINS_NOTHING;
	if (!locked)
		return REMAINS_LATER;
	return sm_session_life(schema, &scan->session, GetCurrentTimestamp()) == SM_LIFE_ACTIVE ?
		REMAINS_ALL : REMAINS_NOTHING;
}

/* Write the event of a finding, about the session if it still exists. */
static void
record(const SmSchema *schema, const SmFinding *finding, const SmSession *session)
{
	SmEvent		event = {
		.type = finding->type,
		.at = finding->at
	};

	sm_client_restore(&finding->client, &event.client);
	if (finding->type == SM_EVENT_TOKEN_GUESSING)
	{
		/* of no single session */
		event.detail = sm_guess_detail(&event.client, finding->suppressed);
		sm_event(schema, &event);
		return;
	}
	event.session_id = &finding->session_id;
	if (session != NULL)
		sm_event_of(&event, session);
	if (finding->cause[0] != '\0')
	{
		JsonbParseState *detail = sm_detail_begin();

		sm_detail_cstring(&detail, "cause", finding->cause);
		sm_detail_int(&detail, "suppressed", finding->suppressed);
		event.detail = sm_detail_end(&detail);
	}
	sm_event(schema, &event);
}
