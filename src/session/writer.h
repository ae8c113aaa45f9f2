/*-------------------------------------------------------------------------
 *
 * writer.h
 *	  Writes rows as INSERT, UPDATE and DELETE do.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_WRITER_H
#define SM_WRITER_H

#include "postgres.h"

#include "access/tupconvert.h"
#include "nodes/execnodes.h"

typedef struct SmWriter
{
	MemoryContext context;		/* in which the writer lives */
	Relation	rel;			/* where rows are written */
	Relation	root;			/* what a statement would name */
	int			natts;			/* columns that the extension made */
	EState	   *estate;
	ResultRelInfo *result_rel;
	ResultRelInfo *root_rel;	/* whose statement triggers fire */
	bool		fires;			/* there are triggers */
	bool		by_column;		/* or generated columns: which an update is of */
	EPQState	epq;
	TupleConversionMap *map;	/* from root's columns to rel's, or NULL */
	TupleTableSlot *root_slot;	/* a row with root's columns */
	TupleTableSlot *slot;		/* a row with rel's columns */
	ExprState **defaults;		/* of further columns, NULL where null */
} SmWriter;

/* New values of some of a row's columns. */
typedef struct SmNewValues
{
	int			n;
	int		   *columns;		/* their numbers */
	Datum	   *values;
	bool	   *nulls;
} SmNewValues;

extern SmWriter *sm_writer_begin(Relation rel, Relation root, int natts);
extern void sm_writer_end(SmWriter *writer);
extern bool sm_writer_insert(SmWriter *writer, const Datum *values,
							 const bool *nulls);
extern bool sm_writer_update(SmWriter *writer, TupleTableSlot *old,
							 Snapshot snapshot, const SmNewValues *new);
extern bool sm_writer_delete(SmWriter *writer, TupleTableSlot *old,
							 Snapshot snapshot);

#endif							/* SM_WRITER_H */
