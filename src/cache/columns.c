/*-------------------------------------------------------------------------
 *
 * columns.c
 *	  Which columns matter to the cache: does a change of a row change what
 *	  session_get returns?
 *
 * The one place that says so, for the extension's own writes as for those of
 * others.  docs/cache-protocol.md promises readers in words what follows from
 * it.  A column that the table below does not name matters.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/timestamp.h"

#include "cache/columns.h"
#include "schema.h"

/* What a change of a column of user_sessions means to readers. */
typedef enum ColumnRule
{
	MATTERS = 0,				/* they must be told */
	MATTERS_IF_EARLIER,			/* what is cached may end too early, not too
								 * late */
	MATTERS_BY_OTHERS,			/* the extension changes what is in it only
								 * along with the version; re-sealing changes
								 * nothing */
	IS_IRRELEVANT				/* they never see it, or may see it late */
} ColumnRule;

static const ColumnRule rules[Natts_user_sessions] = {
	[Anum_expires_at - 1] = MATTERS_IF_EARLIER,
	[Anum_key_id - 1] = MATTERS_BY_OTHERS,
	[Anum_sealed_data - 1] = MATTERS_BY_OTHERS,
	[Anum_last_seen_at - 1] = IS_IRRELEVANT,
	[Anum_sweep_at - 1] = IS_IRRELEVANT,
	[Anum_ttl - 1] = IS_IRRELEVANT,
	[Anum_ip - 1] = IS_IRRELEVANT,
	[Anum_user_agent - 1] = IS_IRRELEVANT,
	[Anum_successor_used_at - 1] = IS_IRRELEVANT,
	[Anum_device_proved_at - 1] = IS_IRRELEVANT,
	[Anum_state_mac - 1] = IS_IRRELEVANT
};

static bool column_differs(TupleDesc desc, HeapTuple before, HeapTuple after,
						   int attnum);
static bool ends_earlier(TupleDesc desc, HeapTuple before, HeapTuple after);

/*
 * Do changes that the extension makes to a session matter, which expires at
 * "expires_at" before them?
 */
bool
sm_cache_changes_matter(const bool *replaces, const Datum *values,
						TimestampTz expires_at)
{
	for (int i = 0; i < Natts_user_sessions; i++)
		if (replaces[i] &&
			(rules[i] == MATTERS ||
			 (rules[i] == MATTERS_IF_EARLIER &&
			  DatumGetTimestampTz(values[i]) < expires_at)))
			return true;
	return false;
}

/*
 * Does what somebody else made of a session's row matter?  "after" is NULL if
 * it was deleted.
 */
bool
sm_cache_session_differs(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	if (after == NULL)
		return true;
	for (int attnum = 1; attnum <= Natts_user_sessions; attnum++)
	{
		ColumnRule	rule = rules[attnum - 1];

		if (rule == IS_IRRELEVANT)
			continue;
		if (column_differs(desc, before, after, attnum) &&
			(rule != MATTERS_IF_EARLIER || ends_earlier(desc, before, after)))
			return true;
	}
	return false;
}

/*
 * Is a key revoked, or something done to it that the functions never do?
 */
bool
sm_cache_key_differs(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	bool		isnull;
	Datum		state;

	if (after == NULL ||
		column_differs(desc, before, after, Anum_keys_key_id) ||
		column_differs(desc, before, after, Anum_keys_check_value))
		return true;
	state = heap_getattr(after, Anum_keys_state, desc, &isnull);
	return column_differs(desc, before, after, Anum_keys_state) &&
		(isnull || strcmp(TextDatumGetCString(state), "revoked") == 0);
}

static bool
column_differs(TupleDesc desc, HeapTuple before, HeapTuple after, int attnum)
{
	Form_pg_attribute attribute = TupleDescAttr(desc, attnum - 1);
	bool		was_null;
	bool		is_null;
	Datum		was = heap_getattr(before, attnum, desc, &was_null);
	Datum		is = heap_getattr(after, attnum, desc, &is_null);

	if (was_null || is_null)
		return was_null != is_null;
	return !datum_image_eq(was, is, attribute->attbyval, attribute->attlen);
}

static bool
ends_earlier(TupleDesc desc, HeapTuple before, HeapTuple after)
{
	bool		isnull;

	return DatumGetTimestampTz(heap_getattr(after, Anum_expires_at, desc, &isnull)) <
		DatumGetTimestampTz(heap_getattr(before, Anum_expires_at, desc, &isnull));
}
