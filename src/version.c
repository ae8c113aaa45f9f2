/*-------------------------------------------------------------------------
 *
 * version.c
 *	  The versions of the library and of the extension.
 *
 * Between the installation of a new library, the restart that loads it, and
 * ALTER EXTENSION UPDATE the two differ.  The library then works wherever the
 * tables and the result types are as it knows them; where they are not, whoever
 * finds that asks here first whether this is why.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "catalog/indexing.h"
#include "catalog/pg_extension.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"

#include "version.h"

static char *extension_version(void);

/*
 * Less than, equal to or greater than 0 as version "a" is older than, the same
 * as or newer than version "b": by their numbers, so that 1.10 is newer than
 * 1.9.
 */
int
sm_version_compare(const char *a, const char *b)
{
	const char *x = a;
	const char *y = b;

	while (*x != '\0' || *y != '\0')
	{
		char	   *x_end;
		char	   *y_end;
		unsigned long m = strtoul(x, &x_end, 10);
		unsigned long n = strtoul(y, &y_end, 10);

		if (m != n)
			return m < n ? -1 : 1;
		x = *x_end == '\0' ? x_end : x_end + 1;
		y = *y_end == '\0' ? y_end : y_end + 1;
	}
	return strcmp(a, b);
}

/*
 * Raise an error if the extension in this database has another version than
 * the library.
 */
void
sm_version_check(void)
{
	char	   *version = extension_version();
	int			order = version == NULL ? 0 : sm_version_compare(version, SM_VERSION);

	if (order < 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of session_manager is newer than the extension in this database"),
				 errdetail("The library has version %s, the extension %s.",
						   SM_VERSION, version),
				 errhint("Run ALTER EXTENSION session_manager UPDATE.")));
	if (order > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the library of session_manager is older than the extension in this database"),
				 errdetail("The library has version %s, the extension %s.",
						   SM_VERSION, version),
				 errhint("Install the library of the extension's version, and restart the server, or connect again if the library is not preloaded.")));
}

/*
 * The extension's version, or NULL if there is none.
 */
static char *
extension_version(void)
{
	Relation	extensions = table_open(ExtensionRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple	tuple;
	char	   *version = NULL;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber,
				F_NAMEEQ, CStringGetDatum("session_manager"));
	scan = systable_beginscan(extensions, ExtensionNameIndexId, true, NULL, 1,
							  &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool		isnull;
		Datum		value = heap_getattr(tuple, Anum_pg_extension_extversion,
										 RelationGetDescr(extensions), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(extensions, AccessShareLock);
	return version;
}
