/*-------------------------------------------------------------------------
 *
 * batch.c
 *	  Transactions of background workers.
 *
 * Each begins by locking the extension against DROP and looking at its
 * version.  DROP EXTENSION therefore waits for one batch, and a worker never
 * finds half of it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_extension.h"
#include "commands/dbcommands.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"

#include "batch.h"
#include "compat.h"
#include "shared.h"
#include "spi.h"
#include "version.h"

static void set_state(SmDatabaseState state);
static void set_local(const char *name, const char *value);

/*
 * Connect a worker to its database, and find that in shared memory.
 */
void
sm_batch_connect(Oid database)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(database, InvalidOid, 0);

	/* what a role or the database is set to must not reach our statements */
	set_local("search_path", "pg_catalog, pg_temp");
	set_local("default_transaction_isolation", "read committed");
	set_local("default_transaction_read_only", "off");
	set_local("statement_timeout", "0");
	set_local("lock_timeout", "0");
	set_local("idle_in_transaction_session_timeout", "0");
#if PG_VERSION_NUM >= 170000
	set_local("transaction_timeout", "0");
#endif
	set_local("session_replication_role", "origin");
	set_local("row_security", "off");

	/* who would be told that a session has ended, and then read on a standby? */
	set_local("session_manager.revoke_commit", "local");

	if (!sm_shared_find_database())
		proc_exit(0);
}

/*
 * Begin a transaction, with SPI and a snapshot, and make sure that the
 * extension is there, stays there until its end, and is this library's.
 * NULL, with no transaction open, if it is not.
 */
const SmSchema *
sm_batch_begin(const char *activity)
{
	Oid			extension;
	Oid			namespace = InvalidOid;
	char	   *version = NULL;
	bool		isnull;

	pgstat_report_activity(STATE_RUNNING, activity);
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	sm_spi_connect();
	PushActiveSnapshot(GetTransactionSnapshot());

	extension = get_extension_oid("session_manager", true);
	if (OidIsValid(extension))
	{
		LockDatabaseObject(ExtensionRelationId, extension, 0, AccessShareLock);
		PopActiveSnapshot();
		PushActiveSnapshot(GetTransactionSnapshot());
		if (SPI_execute("SELECT extversion, extnamespace FROM pg_catalog.pg_extension"
						" WHERE extname = 'session_manager'", true, 1) != SPI_OK_SELECT)
			elog(ERROR, "could not look for extension session_manager");
		if (SPI_processed == 1)
		{
			version = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
			namespace = DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[0],
													   SPI_tuptable->tupdesc, 2, &isnull));
		}
	}

	if (version != NULL && strcmp(version, SM_VERSION) == 0)
	{
		set_state(SM_DB_SERVED);
		return sm_schema_in(namespace);
	}
	if (version == NULL)
		set_state(SM_DB_WITHOUT);
	else
	{
		bool		older = sm_version_compare(version, SM_VERSION) < 0;
		SmDatabaseState state = older ? SM_DB_OLDER_VERSION : SM_DB_NEWER_VERSION;

		if (sm_database->state != state)
			ereport(WARNING,
					(errmsg("session_manager is at version %s in database \"%s\", but the library is at version %s",
							version, get_database_name(MyDatabaseId), SM_VERSION),
					 older ?
					 errhint("Run ALTER EXTENSION session_manager UPDATE; until then, workers do not serve this database.") :
					 errhint("Install the library of the extension's version and restart the server; until then, workers do not serve this database.")));
		set_state(state);
	}
	sm_batch_end();
	return NULL;
}

/*
 * Commit the transaction.
 */
void
sm_batch_end(void)
{
	sm_spi_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(true);
}

static void
set_state(SmDatabaseState state)
{
	LWLockAcquire(sm_shared->lock, LW_EXCLUSIVE);
	sm_database->state = state;
	LWLockRelease(sm_shared->lock);
}

static void
set_local(const char *name, const char *value)
{
	SetConfigOption(name, value, PGC_SUSET, PGC_S_OVERRIDE);
}
