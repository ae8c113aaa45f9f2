/*-------------------------------------------------------------------------
 *
 * spi.c
 *	  SQL that the extension runs itself.
 *
 * A result that SPI reports as a failure is an error here.  The results of a
 * query are in SPI_processed and SPI_tuptable until the next one.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "utils/snapmgr.h"

#include "spi.h"

static uint64 processed(int result);

void
sm_spi_connect(void)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
}

void
sm_spi_finish(void)
{
	if (SPI_finish() != SPI_OK_FINISH)
		elog(ERROR, "SPI_finish failed");
}

/*
 * Run SQL, which may write.  Returns how many rows it was about.
 */
uint64
sm_spi_execute(const char *sql)
{
	return processed(SPI_execute(sql, false, 0));
}

/*
 * The same with "n" parameters, none of them null, and under a snapshot unless
 * that is InvalidSnapshot.
 */
uint64
sm_spi_execute_with(const char *sql, int n, Oid *types, Datum *values,
					Snapshot snapshot)
{
	SPIPlanPtr	plan = SPI_prepare(sql, n, types);

	if (plan == NULL)
		return processed(SPI_result);
	return processed(SPI_execute_snapshot(plan, values, NULL, snapshot,
										  InvalidSnapshot, false, true, 0));
}

/*
 * The one value of a query that only reads, as text; NULL if there is none.
 */
char *
sm_spi_text(const char *sql)
{
	if (processed(SPI_execute(sql, true, 1)) == 0)
		return NULL;
	return SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
}

static uint64
processed(int result)
{
	if (result == SPI_OK_REWRITTEN)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a rule has replaced a statement of session_manager"),
				 errhint("Drop the rule on the table of session_manager, or use a trigger.")));
	if (result < 0)
		elog(ERROR, "could not run SQL of session_manager: %s",
			 SPI_result_code_string(result));
	return SPI_processed;
}
