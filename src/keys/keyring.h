/*-------------------------------------------------------------------------
 *
 * keyring.h
 *	  The keys of this database.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_KEYRING_H
#define SM_KEYRING_H

#include "postgres.h"

#include "keys/crypto.h"
#include "keys/keyfile.h"
#include "schema.h"

typedef enum SmKeyState
{
	SM_KEY_ADDED,
	SM_KEY_ACTIVE,
	SM_KEY_INACTIVE,
	SM_KEY_RETIRED,
	SM_KEY_REVOKED
} SmKeyState;

typedef enum SmKeyMaterial
{
	SM_MATERIAL_PRESENT,
	SM_MATERIAL_MISSING,		/* no line in the key file */
	SM_MATERIAL_WRONG			/* a line, but not the recorded key */
} SmKeyMaterial;

typedef struct SmKey
{
	int32		id;
	SmKeyState	state;
	SmKeyMaterial material;
	SmSubkeys	subkeys;		/* zeroes unless the material is present */
} SmKey;

extern void sm_keyring_init(void);

extern const SmKey *sm_key_find(const SmSchema *schema, int32 key_id);
extern const SmKey *sm_key_usable(const SmSchema *schema, int32 key_id);
extern const SmKey *sm_key_active(const SmSchema *schema);
extern bool sm_key_revoked(const SmSchema *schema, int32 key_id);
extern bool sm_key_present(const SmSchema *schema, int32 key_id);
extern const SmKey *sm_key_any(const SmSchema *schema);
extern int	sm_key_list(const SmSchema *schema, const SmKey **keys);

extern const char *sm_key_state_name(SmKeyState state);
extern bool sm_installation_id(const SmSchema *schema, uint8 id[16]);
extern bool sm_key_file_check(const SmSchema *schema, int32 key_id,
							  uint8 check[SM_CHECK_LEN]);

#endif							/* SM_KEYRING_H */
