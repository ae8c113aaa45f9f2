/*-------------------------------------------------------------------------
 *
 * session_manager.c
 *	  Web-application sessions kept inside PostgreSQL: library entry point.
 *
 * Only wires the other files.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"

#include "cache/cache.h"
#include "cache/fence.h"
#include "cache/writer.h"
#include "commit.h"
#include "guc.h"
#include "keys/crypto.h"
#include "keys/keyfile.h"
#include "keys/keyring.h"
#include "maintenance/contain.h"
#include "maintenance/launcher.h"
#include "maintenance/reseal.h"
#include "maintenance/restore.h"
#include "maintenance/sweep.h"
#include "redact.h"
#include "schema.h"
#include "session/finding.h"
#include "session/guess.h"
#include "session/seen.h"
#include "session/touch.h"
#include "shared.h"
#include "sql/identity.h"
#include "sql/info.h"

#if PG_VERSION_NUM >= 180000
PG_MODULE_MAGIC_EXT(.name = "session_manager",.version = SM_VERSION);
#else
PG_MODULE_MAGIC;
#endif

void		_PG_init(void);

void
_PG_init(void)
{
	sm_crypto_init();
	/* what is registered first is called last: it waits for the rest */
	sm_commit_init();
	sm_guc_init();
	sm_info_init();
	sm_redact_init();
	sm_schema_init();
	sm_identity_init();
	sm_shared_init();
	sm_touch_init();
	sm_finding_init();
	sm_guess_init();
	sm_seen_init();
	sm_contain_init();
	sm_restore_init();
	sm_sweep_init();
	sm_reseal_init();
	sm_cache_init();
	sm_fence_init();
	sm_cache_writer_init();
	sm_launcher_init();
	sm_key_file_init();
	sm_keyring_init();
}
