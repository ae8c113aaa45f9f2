/*-------------------------------------------------------------------------
 *
 * spi.h
 *	  SQL that the extension runs itself.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_SPI_H
#define SM_SPI_H

#include "postgres.h"

#include "executor/spi.h"

extern void sm_spi_connect(void);
extern void sm_spi_finish(void);
extern uint64 sm_spi_execute(const char *sql);
extern uint64 sm_spi_execute_with(const char *sql, int n, Oid *types,
								  Datum *values, Snapshot snapshot);
extern char *sm_spi_text(const char *sql);

#endif							/* SM_SPI_H */
