/*-------------------------------------------------------------------------
 *
 * finding.c
 *	  Security findings that outlive the transaction that made them.
 *
 * A function that finds a replayed token ends the session and records an
 * event in its caller's transaction, where both take effect at once.  Should
 * that transaction roll back, as web frameworks have it do on any error, the
 * finding must stand.  So each is also kept in this backend's memory, with
 * the subtransaction that it was made in; when that aborts, the finding goes
 * to a queue in shared memory, and a worker carries it out.  When the
 * transaction commits there is nothing left to do.  In a read-only
 * transaction, which can write nothing, a finding goes to the queue at once.
 *
 * Both places are bounded.  What does not fit is counted and lost to a
 * rollback, never to a commit.  Some room in each is left for what is about a
 * session that exists, and some of that for replays and corrupt data: refused
 * tokens, of which anybody can send any number, do not crowd them out.
 *
 * Locks: the queue's, for the time of copying one finding, also from the
 * callback of an aborting transaction; nothing in there can raise an error.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "miscadmin.h"
#include "storage/lwlock.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "session/finding.h"
#include "shared.h"

#define QUEUE_LEN	1024
#define PENDING_LEN 16

/* When a finding that could not be carried out is tried again. */
#define MIN_RETRY_US	(3 * USECS_PER_SEC)
#define MAX_RETRY_US	(5 * USECS_PER_MINUTE)

typedef struct Queue
{
	int			n;
	uint64		last_id;
	SmFinding	findings[QUEUE_LEN];
} Queue;

typedef struct Pending
{
	SubTransactionId subxact;
	SmFinding	finding;
} Pending;

static Size size(void);
static void start(bool found);
static void forget(Oid database);
static void at_xact_end(XactEvent event, void *arg);
static void at_subxact_end(SubXactEvent event, SubTransactionId mine,
						   SubTransactionId parent, void *arg);
static void enqueue(const SmFinding *finding);
static int	room(const SmFinding *finding, int len);
static bool add_to_queue(const SmFinding *finding);
static bool remove_from_queue(uint64 id);
static uint64 most_failed(void);

static SmSharedPart part = {
	.name = "session_manager_finding",
	.size = size,
	.n_locks = 1,
	.start = start,
	.forget = forget
};

static Queue *queue = NULL;

/* What this backend's transaction has found. */
static struct
{
	Pending		finding[PENDING_LEN];
	int			n;
}			pending;

/*
 * Have the queue made, and be called at the ends of transactions.  Called
 * once, from _PG_init.
 */
void
sm_finding_init(void)
{
	sm_shared_register(&part);
	if (!process_shared_preload_libraries_in_progress)
		return;
	RegisterXactCallback(at_xact_end, NULL);
	RegisterSubXactCallback(at_subxact_end, NULL);
}

static Size
size(void)
{
	return sizeof(Queue);
}

static void
start(bool found)
{
	queue = part.memory;
	if (!found)
	{
		queue->n = 0;
		queue->last_id = 0;
	}
}

/*
 * Keep a finding in case the transaction rolls back.  True if the caller must
 * not write it itself, because its transaction is read-only.
 */
bool
sm_finding_keep(SmEventType type, const pg_uuid_t *session_id, bool exists,
				const char *cause, int64 suppressed, const SmClient *client)
{
	SmFinding	finding;

	if (!sm_worker_comes())
		return XactReadOnly;

	memset(&finding, 0, offsetof(SmFinding, client.user_agent));
	finding.database = MyDatabaseId;
	finding.type = type;
	finding.at = GetCurrentTimestamp();
	finding.session_id = *session_id;
	finding.exists = exists;
	/* a replay ends the session, as the holder of the token may be a thief */
	finding.revoke = (type == SM_EVENT_TOKEN_REUSED);
	strlcpy(finding.cause, cause ? cause : "", sizeof(finding.cause));
	finding.suppressed = suppressed;
	sm_client_flatten(client, &finding.client);

	if (XactReadOnly)
	{
		enqueue(&finding);
		return true;
	}
	if (pending.n < room(&finding, PENDING_LEN))
	{
		pending.finding[pending.n].subxact = GetCurrentSubTransactionId();
		pending.finding[pending.n++].finding = finding;
	}
	else
		sm_count(SM_FINDINGS_OVERFLOWED);
	return false;
}

/*
 * Copy a database's oldest finding that is due; false if there is none.  It
 * stays on the queue until it is reported as done: a worker that fails must
 * not lose it.
 */
bool
sm_finding_peek(Oid database, SmFinding *finding)
{
	bool		found = false;
	int64		now = sm_clock();

	LWLockAcquire(&part.locks->lock, LW_SHARED);
	for (int i = 0; i < queue->n && !found; i++)
		if (queue->findings[i].database == database &&
			queue->findings[i].retry_at <= now)
		{
			*finding = queue->findings[i];
			found = true;
		}
	LWLockRelease(&part.locks->lock);
	return found;
}

/*
 * Take a finding off the queue once it has been carried out.
 */
void
sm_finding_done(const SmFinding *finding)
{
	LWLockAcquire(&part.locks->lock, LW_EXCLUSIVE);
	(void) remove_from_queue(finding->id);
	LWLockRelease(&part.locks->lock);
}

/*
 * Move a finding behind the others, as somebody is writing to the session, or
 * because it failed: then it has to wait, longer each time.
 */
void
sm_finding_later(const SmFinding *finding, bool failed)
{
	SmFinding	later = *finding;

	if (failed)
	{
		later.retry_at = sm_clock() +
			Min(MAX_RETRY_US, MIN_RETRY_US << Min(later.failures, 10));
		later.failures++;
	}
	LWLockAcquire(&part.locks->lock, LW_EXCLUSIVE);
	if (remove_from_queue(finding->id))
		queue->findings[queue->n++] = later;
	LWLockRelease(&part.locks->lock);
}

/*
 * When the first of a database's findings is due, by sm_clock(); the maximum
 * if there is none.
 */
int64
sm_finding_retry_at(Oid database)
{
	int64		at = PG_INT64_MAX;

	LWLockAcquire(&part.locks->lock, LW_SHARED);
	for (int i = 0; i < queue->n; i++)
		if (queue->findings[i].database == database)
			at = Min(at, queue->findings[i].retry_at);
	LWLockRelease(&part.locks->lock);
	return at;
}

/*
 * Is a finding of a database about certain sessions still on the queue?
 */
bool
sm_finding_waits(Oid database, bool (*which) (const pg_uuid_t *session_id))
{
	bool		waits = false;

	LWLockAcquire(&part.locks->lock, LW_SHARED);
	for (int i = 0; i < queue->n && !waits; i++)
		waits = queue->findings[i].database == database &&
			which(&queue->findings[i].session_id);
	LWLockRelease(&part.locks->lock);
	return waits;
}

/* Forget the findings of a database that is gone. */
static void
forget(Oid database)
{
	int			n = 0;

	LWLockAcquire(&part.locks->lock, LW_EXCLUSIVE);
	for (int i = 0; i < queue->n; i++)
		if (queue->findings[i].database != database)
			queue->findings[n++] = queue->findings[i];
	queue->n = n;
	LWLockRelease(&part.locks->lock);
}

/* Take a finding off the queue, which is locked. */
static bool
remove_from_queue(uint64 id)
{
	for (int i = 0; i < queue->n; i++)
		if (queue->findings[i].id == id)
		{
			queue->n--;
			memmove(&queue->findings[i], &queue->findings[i + 1],
					(queue->n - i) * sizeof(SmFinding));
			return true;
		}
	return false;
}

static void
at_xact_end(XactEvent event, void *arg)
{
	/*
	 * What becomes of a prepared transaction, no callback is told.  A worker
	 * ends no session again that the transaction has ended, and waits for it;
	 * events that are findings alone would be there twice.
	 */
	for (int i = 0; i < pending.n; i++)
		if (event == XACT_EVENT_ABORT ||
			(event == XACT_EVENT_PREPARE && pending.finding[i].finding.revoke))
			enqueue(&pending.finding[i].finding);
	if (event == XACT_EVENT_ABORT || event == XACT_EVENT_COMMIT ||
		event == XACT_EVENT_PREPARE)
		pending.n = 0;
}

static void
at_subxact_end(SubXactEvent event, SubTransactionId mine,
			   SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		while (pending.n > 0 && pending.finding[pending.n - 1].subxact == mine)
			enqueue(&pending.finding[--pending.n].finding);
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		for (int i = pending.n; i > 0 && pending.finding[i - 1].subxact == mine; i--)
			pending.finding[i - 1].subxact = parent;
}

/* Queue a finding for a worker and count what became of it. */
static void
enqueue(const SmFinding *finding)
{
	sm_count(sm_worker_comes() && add_to_queue(finding) ?
			 SM_FINDINGS_QUEUED : SM_FINDINGS_OVERFLOWED);
}

/* How many findings may be there before one like this finds no room. */
static int
room(const SmFinding *finding, int len)
{
	switch (finding->type)
	{
		case SM_EVENT_REJECTED:
		case SM_EVENT_BIND_FAILED:
		case SM_EVENT_CLIENT_CHANGED:
		case SM_EVENT_TOKEN_GUESSING:
			return finding->exists ? len * 3 / 4 : len / 2;
		default:
			return len;
	}
}

/*
 * The finding that has failed most often; 0 if none has.  The queue is locked.
 */
static uint64
most_failed(void)
{
	uint64		id = 0;
	int			failures = 0;

	for (int i = 0; i < queue->n; i++)
		if (queue->findings[i].failures > failures)
		{
			id = queue->findings[i].id;
			failures = queue->findings[i].failures;
		}
	return id;
}

/* False if the queue has no room for it. */
static bool
add_to_queue(const SmFinding *finding)
{
	bool		full;

	LWLockAcquire(&part.locks->lock, LW_EXCLUSIVE);
	full = (queue->n >= room(finding, QUEUE_LEN));
	/* what cannot be carried out must not keep out what can */
	if (full && remove_from_queue(most_failed()))
	{
		sm_count(SM_FINDINGS_OVERFLOWED);
		full = (queue->n >= room(finding, QUEUE_LEN));
	}
	if (!full)
	{
		queue->findings[queue->n] = *finding;
		queue->findings[queue->n++].id = ++queue->last_id;
	}
	LWLockRelease(&part.locks->lock);

	if (!full)
	{
		pg_atomic_write_u32(&sm_database->wanted, 1);
		sm_shared_wake();
	}
	return !full;
}
