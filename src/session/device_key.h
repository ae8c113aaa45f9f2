/*-------------------------------------------------------------------------
 *
 * device_key.h
 *	  The public key of a device, as a JSON Web Key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_DEVICE_KEY_H
#define SM_DEVICE_KEY_H

#include "postgres.h"

#include "utils/jsonb.h"

extern Jsonb *sm_device_key_check(Jsonb *key);
extern text *sm_device_key_thumbprint(Jsonb *key);

#endif							/* SM_DEVICE_KEY_H */
