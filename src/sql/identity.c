/*-------------------------------------------------------------------------
 *
 * identity.c
 *	  The user of a transaction, for row-level security: session_bind,
 *	  session_bind_id, and the functions that read what they bound.
 *
 * What is bound lives in this backend's memory and ends with the transaction,
 * so it is safe behind a pooler in transaction mode; no setting that SQL can
 * write has a part in it.  Bindings follow subtransactions as settings made
 * with SET LOCAL do: rolling back to a savepoint brings the identity of that
 * moment back.  A session_bind that fails binds nobody: a caller who ignores
 * its result gets no rows rather than another user's.
 *
 * The stack lives in TopTransactionContext; innermost is first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "session/assertion.h"
#include "session/authenticate.h"
#include "session/use.h"
#include "sql/arguments.h"
#include "sql/identity.h"

PG_FUNCTION_INFO_V1(sm_session_bind);
PG_FUNCTION_INFO_V1(sm_session_bind_id);
PG_FUNCTION_INFO_V1(sm_session_user_id);
PG_FUNCTION_INFO_V1(sm_session_tenant_id);
PG_FUNCTION_INFO_V1(sm_session_actor_id);
PG_FUNCTION_INFO_V1(sm_session_id);

typedef struct Identity
{
	struct Identity *outer;
	SubTransactionId subxact;	/* in which it was bound */
	bool		bound;			/* false: session_bind failed */
	pg_uuid_t	session_id;
	text	   *user_id;
	text	   *tenant_id;		/* NULL for none */
	text	   *actor_id;		/* likewise */
} Identity;

static Identity *innermost = NULL;

static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);
static void forget(Identity *identity);
static Identity *push_identity(void);
static void take_identity(Identity *identity, const SmSession *session);
static text *copy_text(const text *value);

/*
 * Register callbacks for the ends of transactions.  Called once, from
 * _PG_init.
 */
void
sm_identity_init(void)
{
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

/*
 * session_bind(token)
 */
Datum
sm_session_bind(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	Identity   *identity = push_identity();
	text	   *credential;
	SmToken		token;
	SmScan		scan;
	SmLookup	lookup;
	TimestampTz now = GetCurrentTimestamp();

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	credential = PG_GETARG_TEXT_PP(0);
	if (sm_is_assertion(credential))
	{
		SmSession	session;

		if (sm_assertion_opens(schema, credential, now, &session))
			take_identity(identity, &session);
		PG_RETURN_BOOL(identity->bound);
	}
	if (!sm_token_from_text(credential, &token))
		PG_RETURN_BOOL(false);

	lookup = sm_find_live(&scan, schema, &token, AccessShareLock,
						  SM_EVENT_BIND_FAILED, &sm_no_client);
	if (lookup == SM_LOOKUP_LIVE)
	{
		take_identity(identity, &scan.session);
		if (sm_can_touch() && sm_touch_due(&scan.session, &token, now))
			sm_touch_session(&scan, &token, now, false, &sm_no_client);
	}
	else if (lookup != SM_LOOKUP_UNKNOWN && lookup != SM_LOOKUP_REJECTED &&
			 lookup != SM_LOOKUP_UNPROVED)
		sm_refused(schema, SM_EVENT_BIND_FAILED, &token, &scan.session,
				   "not live", &sm_no_client);
	sm_scan_end(&scan);
	PG_RETURN_BOOL(identity->bound);
}

/*
 * session_bind_id(session_id, user_id)
 */
Datum
sm_session_bind_id(PG_FUNCTION_ARGS)
{
	const SmSchema *schema = sm_called_schema(fcinfo);
	Identity   *identity = push_identity();
	text	   *user_id = sm_arg_user_id(fcinfo, 1);
	SmScan		scan;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	if (sm_find_live_id(&scan, schema, PG_GETARG_UUID_P(0), user_id))
		take_identity(identity, &scan.session);
	sm_scan_end(&scan);
	PG_RETURN_BOOL(identity->bound);
}

/*
 * session_user_id()
 */
Datum
sm_session_user_id(PG_FUNCTION_ARGS)
{
	if (innermost == NULL || !innermost->bound)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(copy_text(innermost->user_id));
}

/*
 * session_tenant_id()
 */
Datum
sm_session_tenant_id(PG_FUNCTION_ARGS)
{
	if (innermost == NULL || !innermost->bound || innermost->tenant_id == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(copy_text(innermost->tenant_id));
}

/*
 * session_actor_id()
 */
Datum
sm_session_actor_id(PG_FUNCTION_ARGS)
{
	if (innermost == NULL || !innermost->bound || innermost->actor_id == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(copy_text(innermost->actor_id));
}

/*
 * session_id()
 */
Datum
sm_session_id(PG_FUNCTION_ARGS)
{
	pg_uuid_t  *id;

	if (innermost == NULL || !innermost->bound)
		PG_RETURN_NULL();
	id = palloc(sizeof(pg_uuid_t));
	*id = innermost->session_id;
	PG_RETURN_UUID_P(id);
}

static void
at_xact_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PARALLEL_ABORT:
		case XACT_EVENT_PREPARE:
			/* the memory goes with the transaction */
			innermost = NULL;
			break;
		case XACT_EVENT_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PRE_PREPARE:
			break;
	}
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	Identity   *identity = innermost;

	/* there is one for each level at most */
	if (identity == NULL || identity->subxact != mine)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		innermost = identity->outer;
		forget(identity);
		pfree(identity);
	}
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
	{
		Identity   *outer = identity->outer;

		identity->subxact = parent;
		if (outer != NULL && outer->subxact == parent)
		{
			identity->outer = outer->outer;
			forget(outer);
			pfree(outer);
		}
	}
}

/* Bind an identity to nobody. */
static void
forget(Identity *identity)
{
	if (identity->user_id)
		pfree(identity->user_id);
	if (identity->tenant_id)
		pfree(identity->tenant_id);
	if (identity->actor_id)
		pfree(identity->actor_id);
	identity->user_id = identity->tenant_id = identity->actor_id = NULL;
	identity->bound = false;
}

/* A new innermost identity, bound to nobody yet. */
static Identity *
push_identity(void)
{
	SubTransactionId subxact = GetCurrentSubTransactionId();
	Identity   *identity;

	/* binding in a loop must not pile up: the last of a level counts */
	if (innermost != NULL && innermost->subxact == subxact)
	{
		forget(innermost);
		return innermost;
	}
	identity = MemoryContextAllocZero(TopTransactionContext, sizeof(Identity));
	identity->outer = innermost;
	identity->subxact = subxact;
	innermost = identity;
	return identity;
}

/* Bind a live session's. */
static void
take_identity(Identity *identity, const SmSession *session)
{
	MemoryContext old = MemoryContextSwitchTo(TopTransactionContext);

	identity->session_id = *session->session_id;
	identity->user_id = copy_text(session->user_id);
	if (session->tenant_id)
		identity->tenant_id = copy_text(session->tenant_id);
	if (session->actor_id)
		identity->actor_id = copy_text(session->actor_id);
	identity->bound = true;
	MemoryContextSwitchTo(old);
}

static text *
copy_text(const text *value)
{
	return cstring_to_text_with_len(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}
