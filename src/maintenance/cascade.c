/*-------------------------------------------------------------------------
 *
 * cascade.c
 *	  Whose code runs when a session is deleted by maintenance?
 *
 * A table may refer to user_sessions with ON DELETE CASCADE, SET NULL or SET
 * DEFAULT.  PostgreSQL changes its rows as that table's owner.  But AFTER
 * triggers for these changes wait for the end of the statement that deletes
 * the session, and before PostgreSQL 18 they run as the role that executes
 * that: as a superuser, where a worker sweeps.  Whoever owns such a table
 * without being a superuser could become one by a trigger.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_trigger.h"
#include "miscadmin.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/reltrigger.h"

#include "maintenance/cascade.h"

#if PG_VERSION_NUM < 180000
static void check_referencing(Oid relid, List **seen);
static bool cascades(const Trigger *trigger);
static bool has_late_code(Relation rel);
#endif

/*
 * Raise an error if deletions of sessions would have a trigger of somebody's
 * run as a superuser who is none.  What has been looked at stays locked, so
 * that it is still so when sessions are deleted.
 */
void
sm_check_cascades(const SmSchema *schema)
{
#if PG_VERSION_NUM < 180000
	List	   *seen = NIL;

	if (superuser())
		check_referencing(schema->sessions, &seen);
	list_free(seen);
#endif
}

#if PG_VERSION_NUM < 180000
/* The tables whose rows a deletion from this one changes, and so on. */
static void
check_referencing(Oid relid, List **seen)
{
	Relation	rel = table_open(relid, RowExclusiveLock);
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		List	   *tables;
		ListCell   *lc;

		if (!cascades(&triggers->triggers[i]))
			continue;
		tables = find_all_inheritors(triggers->triggers[i].tgconstrrelid,
									 RowExclusiveLock, NULL);
		foreach(lc, tables)
		{
			Relation	referencing;

			if (list_member_oid(*seen, lfirst_oid(lc)))
				continue;
			*seen = lappend_oid(*seen, lfirst_oid(lc));
			referencing = table_open(lfirst_oid(lc), NoLock);
			if (!superuser_arg(referencing->rd_rel->relowner) &&
				has_late_code(referencing))
				ereport(ERROR,
						(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
						 errmsg("a trigger of \"%s\" would run as a superuser when a session is deleted",
								RelationGetRelationName(referencing)),
						 errdetail("A foreign key has deletions go on there, and its owner is no superuser."),
						 errhint("Make it a BEFORE trigger, or have a superuser own the table.")));
			table_close(referencing, NoLock);
			check_referencing(lfirst_oid(lc), seen);
		}
		list_free(tables);
	}
	table_close(rel, NoLock);
}

/* Does a foreign key's trigger change the rows that refer to a deleted one? */
static bool
cascades(const Trigger *trigger)
{
	return OidIsValid(trigger->tgconstrrelid) &&
		(trigger->tgfoid == F_RI_FKEY_CASCADE_DEL ||
		 trigger->tgfoid == F_RI_FKEY_SETNULL_DEL ||
		 trigger->tgfoid == F_RI_FKEY_SETDEFAULT_DEL);
}

/* Has a table a trigger that fires after rows are deleted or updated? */
static bool
has_late_code(Relation rel)
{
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
	{
		const Trigger *trigger = &triggers->triggers[i];

		if (!trigger->tgisinternal && TRIGGER_FOR_AFTER(trigger->tgtype) &&
			(TRIGGER_FOR_DELETE(trigger->tgtype) ||
			 TRIGGER_FOR_UPDATE(trigger->tgtype)))
			return true;
	}
	return false;
}
#endif
