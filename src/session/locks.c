/*-------------------------------------------------------------------------
 *
 * locks.c
 *	  The heavyweight locks that order logins, revocations and maintenance.
 *
 * All are held until the end of the transaction, under advisory lock tags that
 * no SQL function can reach: a role that may call those cannot hold up a
 * login.
 *
 *	user	One for each user.  Logins take it in ShareLock, or in
 *			ExclusiveLock where a limit of sessions has to be counted;
 *			functions that look at all of a user's sessions take it in
 *			ExclusiveLock.  A login that races one of these is either seen
 *			by it or begins after it has ended.
 *	login	LOGIN_LOCKS of them, each for a part of all users.  A login takes
 *			that of its user in AccessShareLock, which conflicts with nobody,
 *			so that sm_wait_for_logins can tell which logins are under way.
 *
 * A transaction takes at most USER_LOCKS of the first kind, so that one which
 * logs a million users in does not run out of lock memory.  For further users
 * it takes the login lock only, in a mode that says so:
 *
 *	RowShareLock		It logs in users whose locks it does not hold.  A
 *						transaction that looks at all sessions of a user
 *						waits for it, having locked the user.
 *	AccessExclusiveLock	The same where a limit has to be counted, which other
 *						logins must not change meanwhile.
 *
 * A revocation that waits for such a transaction sees its rows.  One that
 * begins its wait before such a transaction takes the login lock may miss
 * them, and then that login is the later one of the two: both were under way
 * at once, and only the order of their ends was open.  Revoking the sessions
 * of more than USER_LOCKS users in a transaction follows the same rule, which
 * is also that of session_invalidate_tenant and _everything.
 *
 * A user's lock is taken before the login lock.  A transaction that waits for
 * a login lock then holds at most user locks, and one that holds a login lock
 * in a strong mode waits for no user lock.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "storage/proc.h"
#include "utils/guc.h"

#include "compat.h"
#include "guc.h"
#include "keys/crypto.h"
#include "keys/token.h"
#include "session/locks.h"

/* in the place of the 1 and 2 of advisory locks that SQL takes */
#define USER_LOCK_SPACE			0x534D
#define LOGIN_LOCK_SPACE		0x534E
#define MAINTENANCE_LOCK_SPACE	0x534F

#define LOGIN_LOCKS		16

/* Well below what max_locks_per_transaction (64) and 100 connections allow. */
#define USER_LOCKS		256

/*
 * User locks that a transaction has taken, and which transaction that was.
 * Too high after a subtransaction that took some has been rolled back, which
 * only makes the others fewer.
 */
static int	user_locks = 0;
static LocalTransactionId user_locks_taker = InvalidLocalTransactionId;

static bool lock_one_user(uint64 hash, LOCKMODE mode, bool bounded);
static LockAcquireResult acquire(const LOCKTAG *tag, LOCKMODE mode, bool bounded);
static void login_tag(LOCKTAG *tag, uint64 hash);
static void waits_context(void *arg);

/*
 * Hash of a user id as any client computes it: over its UTF-8 bytes.
 */
uint64
sm_user_text_hash(text *user_id)
{
	char	   *bytes = VARDATA_ANY(user_id);
	int			len = VARSIZE_ANY_EXHDR(user_id);
	char	   *utf8 = pg_server_to_any(bytes, len, PG_UTF8);

	return sm_user_hash(utf8, utf8 == bytes ? (size_t) len : strlen(utf8));
}

/*
 * Mark this transaction as one that logs a user in, until its end.  Waits no
 * longer than sm_bound_waits allows for one that ends the user's sessions, or
 * counts them.  "counted": the new session counts against a limit, if there is
 * one.  The caller takes its snapshot afterwards.
 */
void
sm_lock_login(text *user_id, bool counted)
{
	uint64		hash = sm_user_text_hash(user_id);
	bool		limited = sm_max_sessions_per_user > 0;
	LOCKMODE	mode = AccessShareLock;
	LOCKTAG		tag;

	/* without a user lock, only the login lock excludes a login that counts */
	if (!lock_one_user(hash, limited && counted ? ExclusiveLock : ShareLock, true))
		mode = limited ? AccessExclusiveLock : RowShareLock;
	login_tag(&tag, hash);
	(void) acquire(&tag, mode, true);
}

/*
 * Exclude logins of a user until the end of the transaction, having waited for
 * those under way.  The caller takes its snapshot afterwards.
 */
void
sm_lock_user(text *user_id)
{
	uint64		hash = sm_user_text_hash(user_id);
	LOCKTAG		tag;
	LOCKMODE	mode = AccessExclusiveLock;

	/* then only those that have not locked the user remain to be waited for */
	if (lock_one_user(hash, ExclusiveLock, false))
		mode = ExclusiveLock;
	login_tag(&tag, hash);
	WaitForLockers(tag, mode, false);
}

/*
 * Wait for the transactions that are logging somebody in now; blocks none.
 */
void
sm_wait_for_logins(void)
{
	LOCKTAG		tag;

	for (uint64 i = 0; i < LOGIN_LOCKS; i++)
	{
		login_tag(&tag, i);
		WaitForLockers(tag, AccessExclusiveLock, false);
	}
}

/*
 * Let nothing that this function waits for hold it up for longer than
 * session_manager.login_wait: a login that is left open in a transaction must
 * not keep a revocation waiting for ever, nor the other way round.  It fails
 * rather than go on without what it waits for, as a revocation that is
 * acknowledged must hold.
 */
void
sm_bound_waits(SmBoundedWaits *waits)
{
	char		timeout[32];

	/* undone by the end of the transaction if it fails */
	waits->guc_level = NewGUCNestLevel();
	if (sm_login_wait > 0 && (LockTimeout == 0 || LockTimeout > sm_login_wait))
	{
		snprintf(timeout, sizeof(timeout), "%d", sm_login_wait);
		(void) set_config_option("lock_timeout", timeout, PGC_USERSET,
								 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	}
	waits->context.callback = waits_context;
	waits->context.arg = NULL;
	waits->context.previous = error_context_stack;
	error_context_stack = &waits->context;
}

void
sm_unbound_waits(SmBoundedWaits *waits)
{
	error_context_stack = waits->context.previous;
	AtEOXact_GUC(true, waits->guc_level);
}

/*
 * Be the one who maintains the partitions, until the end of the transaction.
 * False, without waiting, if somebody else is.
 */
bool
sm_lock_maintenance(void)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, 0, MAINTENANCE_LOCK_SPACE);
	return LockAcquire(&tag, ExclusiveLock, false, true) != LOCKACQUIRE_NOT_AVAIL;
}

/*
 * Wait for all transactions that are writing to user_sessions now, VACUUM
 * among them; blocks none.
 */
void
sm_wait_for_writers(const SmSchema *schema)
{
	LOCKTAG		tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, schema->sessions);
	WaitForLockers(tag, ShareLock, false);
}

/* Lock a user.  False if this transaction has locked enough of them. */
static bool
lock_one_user(uint64 hash, LOCKMODE mode, bool bounded)
{
	LocalTransactionId taker = sm_local_transaction();
	LOCKTAG		tag;

	if (user_locks_taker != taker)
	{
		user_locks_taker = taker;
		user_locks = 0;
	}
	if (user_locks >= USER_LOCKS)
		return false;
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, (uint32) (hash >> 32),
						 (uint32) hash, USER_LOCK_SPACE);
	if (acquire(&tag, mode, bounded) == LOCKACQUIRE_OK)
		user_locks++;
	return true;
}

/*
 * Take a lock.  If it is not free, bound the wait where the
 * caller has not done so: that costs more than the lock.
 */
static LockAcquireResult
acquire(const LOCKTAG *tag, LOCKMODE mode, bool bounded)
{
	LockAcquireResult result = LOCKACQUIRE_NOT_AVAIL;
	SmBoundedWaits waits;

	if (bounded)
		result = LockAcquire(tag, mode, false, true);
	if (result == LOCKACQUIRE_NOT_AVAIL)
	{
		if (bounded)
			sm_bound_waits(&waits);
		result = LockAcquire(tag, mode, false, false);
		if (bounded)
			sm_unbound_waits(&waits);
	}
	return result;
}

static void
login_tag(LOCKTAG *tag, uint64 hash)
{
	SET_LOCKTAG_ADVISORY(*tag, MyDatabaseId, 0, (uint32) (hash % LOGIN_LOCKS),
						 LOGIN_LOCK_SPACE);
}

static void
waits_context(void *arg)
{
	if (geterrcode() != ERRCODE_LOCK_NOT_AVAILABLE)
		return;
	errhint("A transaction that logs a user in or changes a session is still open. End it, or call again later; session_manager.login_wait sets how long to wait.");
	errcontext("waiting for transactions that log users in or change their sessions");
}
