/*-------------------------------------------------------------------------
 *
 * guess.c
 *	  Counts wrong tokens by the network that they come from, as
 *	  client_binding compares networks.
 *
 * When a network has sent session_manager.guessing_threshold different wrong
 * tokens within WINDOW_US, that is worth one event, and then none for
 * SILENCE_US.  Different ones: a browser that sends the cookie of a deleted
 * session with every request guesses nothing.  How many differ is estimated
 * from the bits that they set in a small map, as "linear counting" has it
 * (Whang, Vander-Zanden, Taylor, 1990).
 *
 * The table has a fixed number of entries in sets of WAYS, in shared memory or,
 * where there is none, in this process's; a network's hash, under a random seed
 * that no attacker knows, names its set.  Where a set is full, the network that
 * has sent the fewest tokens is forgotten, so that a flood of networks that
 * send one token each pushes out each other, and none that is guessing.  A
 * network that has been recorded is not forgotten before its silence is over,
 * so that no flood makes it be recorded twice; a network that finds its set
 * full of those is not counted.  Guessing that is spread over more networks
 * than that goes unnoticed here, and shows in the counters.
 *
 * A worker records the event where the caller's transaction cannot, or does not
 * last (finding.c).  Where no worker comes, an entry keeps the transaction that
 * was to record the event, and is recorded again should that have failed.
 *
 * Locks: one of the set, only while a token is being refused.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "access/transam.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"
#include "storage/lwlock.h"
#include "storage/procarray.h"
#include "storage/shmem.h"
#include "utils/memutils.h"

#include "compat.h"
#include "guc.h"
#include "keys/crypto.h"
#include "session/events.h"
#include "session/guess.h"
#include "shared.h"

#define WINDOW_US		(10 * USECS_PER_MINUTE)
#define SILENCE_US		USECS_PER_HOUR

#define WAYS			16
#define SHARED_SETS		256
#define LOCAL_SETS		16
#define N_LOCKS			16

/* Enough to tell SM_MAX_GUESSING_THRESHOLD tokens apart. */
#define MAP_BITS		1024
#define MAP_WORDS		(MAP_BITS / 64)

/* A network from which wrong tokens came. */
typedef struct Entry
{
	Oid			database;		/* InvalidOid: free */
	SmNetwork	network;
	int64		begun;			/* its window, by sm_clock() */
	int64		silent_until;	/* by sm_clock(); 0: it has not been recorded */
	TransactionId recorder;		/* if that may still fail */
	int64		recorded;		/* by that, of "count" */
	int64		count;			/* wrong tokens since it was recorded */
	int			n_bits;			/* that are set */
	uint64		map[MAP_WORDS];
} Entry;

typedef struct Table
{
	uint64		seed;
	Entry		entries[FLEXIBLE_ARRAY_MEMBER];
} Table;

static Size size(void);
static void start(bool found);
static void make_local(void);
static Entry *lock_set(const SmNetwork *network, LWLock **lock);
static Entry *find_entry(Entry *set, const SmNetwork *network, int64 now);
static SmGuess count_in(Entry *entry, uint32 hash, int64 now, int64 *count);
static void begin_window(Entry *entry, int64 now);
static bool is_silent(Entry *entry, int64 now);
static int	bits_needed(void);
static void set_recorder(const SmNetwork *network, TransactionId recorder);

static SmSharedPart part = {
	.name = "session_manager_guess",
	.size = size,
	.n_locks = N_LOCKS,
	.start = start
};

static Table *table = NULL;
static uint32 n_sets = 0;

/*
 * Have the table made.  Called once, from _PG_init.
 */
void
sm_guess_init(void)
{
	sm_shared_register(&part);
}

static Size
size(void)
{
	return offsetof(Table, entries) + SHARED_SETS * WAYS * sizeof(Entry);
}

static void
start(bool found)
{
	table = part.memory;
	n_sets = SHARED_SETS;
	if (!found)
	{
		memset(table, 0, size());
		sm_random(&table->seed, sizeof(table->seed));
	}
}

/*
 * Count a wrong token.  SM_GUESS_BURST if the caller is to record that there
 * are many: then *count is how many came since that was last recorded.  Where
 * nothing could be recorded, as on a standby, that is left to a later one.
 */
SmGuess
sm_guess_count(const uint8 *id, const uint8 *digest, const SmClient *client,
			   int64 *count)
{
	SmNetwork	network;
	SmGuess		guess = SM_GUESS_FEW;
	LWLock	   *lock;
	Entry	   *set;
	Entry	   *entry;
	uint64		hash;
	int64		now = sm_clock();

	if (client->ip == NULL || sm_guessing_threshold == 0 || RecoveryInProgress())
		return SM_GUESS_FEW;
	if (table == NULL)
		make_local();
	network = sm_network(client->ip);
	hash = hash_bytes_extended(digest, SM_DIGEST_LEN,
							   hash_bytes_extended(id, SM_ID_LEN, table->seed));
	set = lock_set(&network, &lock);
	entry = find_entry(set, &network, now);
	if (entry != NULL)
		guess = count_in(entry, (uint32) hash, now, count);
	if (lock != NULL)
		LWLockRelease(lock);
	if (guess == SM_GUESS_BURST && !sm_worker_comes())
		set_recorder(&network, GetCurrentTransactionId());
	return guess;
}

/*
 * What the event of a burst tells.
 */
Jsonb *
sm_guess_detail(const SmClient *client, int64 count)
{
	JsonbParseState *detail = sm_detail_begin();

	if (client->ip != NULL)
	{
		SmNetwork	network = sm_network(client->ip);

		sm_detail_cstring(&detail, "network", sm_network_text(&network));
	}
	sm_detail_int(&detail, "count", count);
	return sm_detail_end(&detail);
}

/* Make a table of this process's own. */
static void
make_local(void)
{
	table = MemoryContextAllocZero(TopMemoryContext,
								   offsetof(Table, entries) +
								   LOCAL_SETS * WAYS * sizeof(Entry));
	n_sets = LOCAL_SETS;
	sm_random(&table->seed, sizeof(table->seed));
}

/* The entries of a network's set, and its lock, held, if there is one. */
static Entry *
lock_set(const SmNetwork *network, LWLock **lock)
{
	uint64		hash = hash_bytes_extended((const unsigned char *) network,
										   sizeof(SmNetwork), table->seed);
	uint32		set = (uint32) (hash % n_sets);

	*lock = NULL;
	if (part.locks != NULL)
	{
		*lock = &part.locks[set % N_LOCKS].lock;
		LWLockAcquire(*lock, LW_EXCLUSIVE);
	}
	return &table->entries[set * WAYS];
}

/* The entry of a network, made if there is room; otherwise NULL. */
static Entry *
find_entry(Entry *set, const SmNetwork *network, int64 now)
{
	Entry	   *victim = NULL;

	for (int i = 0; i < WAYS; i++)
	{
		Entry	   *entry = &set[i];

		if (entry->database == MyDatabaseId &&
			sm_network_equal(&entry->network, network))
			return entry;
		if (now < entry->silent_until)
			continue;
		/* what is free or over has none to lose */
		if (!OidIsValid(entry->database) || now - entry->begun >= WINDOW_US)
			entry->n_bits = 0;
		if (victim == NULL || entry->n_bits < victim->n_bits)
			victim = entry;
	}
	if (victim == NULL)
		return NULL;
	memset(victim, 0, sizeof(Entry));
	victim->database = MyDatabaseId;
	victim->network = *network;
	victim->begun = now;
	return victim;
}

static SmGuess
count_in(Entry *entry, uint32 hash, int64 now, int64 *count)
{
	uint32		bit = hash % MAP_BITS;
	uint64		mask = UINT64CONST(1) << (bit % 64);

	entry->count++;
	if (is_silent(entry, now))
		return SM_GUESS_KNOWN;
	if (now - entry->begun >= WINDOW_US)
		begin_window(entry, now);
	if ((entry->map[bit / 64] & mask) == 0)
	{
		entry->map[bit / 64] |= mask;
		entry->n_bits++;
	}
	if (entry->n_bits < bits_needed() || (XactReadOnly && !sm_worker_comes()))
		return SM_GUESS_FEW;
	*count = entry->count;
	entry->recorder = InvalidTransactionId;
	entry->recorded = entry->count;
	entry->count = 0;
	entry->silent_until = now + SILENCE_US;
	return SM_GUESS_BURST;
}

/*
 * Begin to count again, with the token that has just come.  Those that came in a
 * silence are to be told with the next event.
 */
static void
begin_window(Entry *entry, int64 now)
{
	if (entry->silent_until == 0)
		entry->count = 1;
	entry->silent_until = 0;
	entry->begun = now;
	entry->n_bits = 0;
	memset(entry->map, 0, sizeof(entry->map));
}

/* Has a network been recorded not long ago, by a transaction that lasts? */
static bool
is_silent(Entry *entry, int64 now)
{
	if (now >= entry->silent_until)
		return false;
	if (!TransactionIdIsValid(entry->recorder) ||
		TransactionIdIsInProgress(entry->recorder))
		return true;
	if (!TransactionIdDidCommit(entry->recorder))
	{
		entry->count += entry->recorded;
		entry->silent_until = 0;
	}
	entry->recorder = InvalidTransactionId;
	return entry->silent_until != 0;
}

/* How many bits the threshold's number of tokens sets. */
static int
bits_needed(void)
{
	return (int) ceil(MAP_BITS * -expm1(-(double) sm_guessing_threshold / MAP_BITS));
}

/* Keep the transaction that is to record a network's event. */
static void
set_recorder(const SmNetwork *network, TransactionId recorder)
{
	LWLock	   *lock;
	Entry	   *set = lock_set(network, &lock);

	for (int i = 0; i < WAYS; i++)
		if (set[i].database == MyDatabaseId &&
			sm_network_equal(&set[i].network, network))
			set[i].recorder = recorder;
	if (lock != NULL)
		LWLockRelease(lock);
}
