/*-------------------------------------------------------------------------
 *
 * patch.c
 *	  JSON Merge Patch (RFC 7396) on jsonb.
 *
 * A member of the patch that is null removes the target's member of that
 * name; one that is an object is merged into the target's, or into an empty
 * object where the target has none, so that no null of it survives; anything
 * else, arrays included, replaces the target's.
 *
 * Works on the binary form: each object of the target and of the patch is
 * read once, and the other one's member of the same name is found by binary
 * search.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"

#include "session/patch.h"

static JsonbValue *merge_object(JsonbParseState **state,
								JsonbContainer *target,
								JsonbContainer *patch);
static void merge_member(JsonbParseState **state, JsonbValue *key,
						 JsonbValue *old, JsonbValue *change);
static bool is_object(const JsonbValue *value);
static bool find_member(JsonbContainer *object, const JsonbValue *key,
						JsonbValue *value);

Jsonb *
sm_merge_patch(Jsonb *target, Jsonb *patch)
{
	JsonbParseState *state = NULL;

	Assert(JB_ROOT_IS_OBJECT(target));
	Assert(JB_ROOT_IS_OBJECT(patch));

	return JsonbValueToJsonb(merge_object(&state, &target->root,
										  &patch->root));
}

/*
 * Push the result of merging an object into another, or into an empty one
 * when target is NULL.
 */
static JsonbValue *
merge_object(JsonbParseState **state, JsonbContainer *target,
			 JsonbContainer *patch)
{
	JsonbIterator *it;
	JsonbValue	key;
	JsonbValue	value;
	JsonbValue	other;

	check_stack_depth();

	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);

	/* what the target has, as far as the patch leaves it */
	if (target != NULL)
	{
		it = JsonbIteratorInit(target);
		JsonbIteratorNext(&it, &key, true);
		while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
		{
			JsonbIteratorNext(&it, &value, true);
			if (find_member(patch, &key, &other))
				merge_member(state, &key, &value, &other);
			else
			{
				pushJsonbValue(state, WJB_KEY, &key);
				pushJsonbValue(state, WJB_VALUE, &value);
			}
		}
	}

	/* what only the patch has */
	it = JsonbIteratorInit(patch);
	JsonbIteratorNext(&it, &key, true);
	while (JsonbIteratorNext(&it, &key, true) == WJB_KEY)
	{
		JsonbIteratorNext(&it, &value, true);
		if (target == NULL || !find_member(target, &key, &other))
			merge_member(state, &key, NULL, &value);
	}

	return pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * Push a member that the patch names; old is the target's value, if any.
 */
static void
merge_member(JsonbParseState **state, JsonbValue *key, JsonbValue *old,
			 JsonbValue *change)
{
	if (change->type == jbvNull)
		return;

	pushJsonbValue(state, WJB_KEY, key);

	if (is_object(change))
		merge_object(state,
					 old != NULL && is_object(old) ? old->val.binary.data : NULL,
					 change->val.binary.data);
	else
		pushJsonbValue(state, WJB_VALUE, change);
}

/* is a value inside a jsonb an object? */
static bool
is_object(const JsonbValue *value)
{
	return value->type == jbvBinary &&
		JsonContainerIsObject(value->val.binary.data);
}

static bool
find_member(JsonbContainer *object, const JsonbValue *key, JsonbValue *value)
{
	return getKeyJsonValueFromContainer(object, key->val.string.val,
										key->val.string.len, value) != NULL;
}
