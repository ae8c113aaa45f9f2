/*-------------------------------------------------------------------------
 *
 * keyadmin.h
 *	  Key administration.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_KEYADMIN_H
#define SM_KEYADMIN_H

#include "postgres.h"

#include "schema.h"

extern void sm_create_installation(const SmSchema *schema);

#endif							/* SM_KEYADMIN_H */
