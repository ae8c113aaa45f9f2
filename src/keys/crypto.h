/*-------------------------------------------------------------------------
 *
 * crypto.h
 *	  The cryptography of the extension, all of it libsodium's.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CRYPTO_H
#define SM_CRYPTO_H

#include "postgres.h"

#include "datatype/timestamp.h"
#include "utils/jsonb.h"

#include "keys/token.h"

#define SM_KEY_LEN		32		/* master keys and most subkeys */
#define SM_VERIFIER_LEN 32
#define SM_CHECK_LEN	32
#define SM_STATE_MAC_LEN	16
#define SM_STATE_KEY_LEN	16
#define SM_STAMP_KEY_LEN	16
#define SM_SEED_LEN		32		/* of a key pair that signs */
#define SM_PUBLIC_KEY_LEN	32
#define SM_SIGNATURE_LEN	64
#define SM_SHA256_LEN	32
#define SM_TRUST_MAC_LEN	32

#define SM_BINDING_ID_LEN	16

/* Longest subject of a proof or a challenge. */
#define SM_STAMP_SUBJECT_LEN	(1 + SM_ID_LEN)

/* Longest user, tenant or actor id: bounds what is fed to a MAC from a table row. */
#define SM_MAX_NAME_LEN 512

/* Longest address, as its family, bits and bytes. */
#define SM_MAX_IP_LEN	18

/* The subkeys of one master key in one database. */
typedef struct SmSubkeys
{
	uint8		seal[SM_KEY_LEN];
	uint8		verifier[SM_KEY_LEN];
	uint8		state[SM_STATE_KEY_LEN];
	uint8		signing[SM_SEED_LEN];	/* of assertions */
	uint8		trust[SM_KEY_LEN];
	uint8		device[SM_STAMP_KEY_LEN];	/* of proofs and challenges */
	uint8		check[SM_CHECK_LEN];	/* the only one that is stored */
} SmSubkeys;

/* Whose session it is and how long it can last: bound into every MAC. */
typedef struct SmOwner
{
	const uint8 *session_id;	/* SM_ID_LEN bytes */
	const char *user_id;
	size_t		user_len;
	const char *tenant_id;		/* NULL for none */
	size_t		tenant_len;
	TimestampTz absolute_expires_at;
} SmOwner;

/* What the seal binds beside the owner. */
typedef struct SmSealContext
{
	SmOwner		owner;
	uint32		key_id;
	uint32		version;
	TimestampTz created_at;
	TimestampTz authenticated_at;
	const uint8 *device_binding_id; /* SM_BINDING_ID_LEN bytes; NULL for none */
} SmSealContext;

/* What of a session's row is bound together beside the owner. */
typedef struct SmState
{
	SmOwner		owner;
	TimestampTz created_at;
	TimestampTz authenticated_at;
	TimestampTz expires_at;
	int64		ttl;
	int32		version;
	int32		key_id;
	int32		verifier_key_id;
	const uint8 *verifier;		/* SM_VERIFIER_LEN bytes */
	const uint8 *ip;			/* NULL for none */
	size_t		ip_len;
	int64		idle_timeout;	/* 0 for none */
	const uint8 *actor_session_id;	/* SM_ID_LEN bytes; NULL for no actor */
	const char *actor_id;
	size_t		actor_len;
	const uint8 *device_binding_id; /* SM_BINDING_ID_LEN bytes; NULL for none */
	TimestampTz device_bound_at;
	TimestampTz device_proved_at;
	bool		rotated;		/* else the rest does not count */
	TimestampTz rotated_at;
	bool		successor_used;
	TimestampTz successor_used_at;
	TimestampTz previous_valid_until;
	int32		previous_key_id;
	const uint8 *previous_verifier; /* SM_VERIFIER_LEN bytes */
} SmState;

/* The contents of a seal. */
typedef struct SmContent
{
	Jsonb	   *data;
	Jsonb	   *auth;			/* NULL for none */
	Jsonb	   *device_key;		/* a JSON Web Key; NULL for none */
} SmContent;

extern void sm_crypto_init(void);
extern void sm_random(void *buf, size_t len);
extern void sm_wipe(void *buf, size_t len);
extern bool sm_equal(const void *a, const void *b, size_t len);

extern uint64 sm_user_hash(const char *utf8, size_t len);
extern void sm_token_digest(const uint8 id[SM_ID_LEN],
							const uint8 secret[SM_SECRET_LEN],
							uint8 digest[SM_DIGEST_LEN]);

extern void sm_derive_subkeys(const uint8 master[SM_KEY_LEN],
							  const uint8 installation_id[16],
							  SmSubkeys *out);
extern void sm_verifier(const uint8 key[SM_KEY_LEN], const SmOwner *owner,
						const uint8 digest[SM_DIGEST_LEN],
						uint8 verifier[SM_VERIFIER_LEN]);
extern void sm_state_mac(const uint8 key[SM_STATE_KEY_LEN], const SmState *state,
						 uint8 mac[SM_STATE_MAC_LEN]);
extern bytea *sm_seal(const uint8 key[SM_KEY_LEN], const SmSealContext *context,
					  const SmContent *content);
extern bool sm_open(const uint8 key[SM_KEY_LEN], const SmSealContext *context,
					const bytea *sealed, SmContent *content);

extern void sm_public_key(const uint8 seed[SM_SEED_LEN],
						  uint8 public_key[SM_PUBLIC_KEY_LEN]);
extern void sm_sign(const uint8 seed[SM_SEED_LEN], const void *message,
					size_t len, uint8 signature[SM_SIGNATURE_LEN]);
extern bool sm_signed(const uint8 public_key[SM_PUBLIC_KEY_LEN],
					  const void *message, size_t len,
					  const uint8 signature[SM_SIGNATURE_LEN]);
extern void sm_trust_mac(const uint8 key[SM_KEY_LEN], const uint8 issuer[16],
						 const uint8 public_key[SM_PUBLIC_KEY_LEN],
						 uint8 mac[SM_TRUST_MAC_LEN]);
extern void sm_stamp_mac(const uint8 key[SM_STAMP_KEY_LEN], const void *subject,
						 size_t len, SmStamp *stamp);
extern bool sm_stamp_holds(const uint8 key[SM_STAMP_KEY_LEN], const void *subject,
						   size_t len, const SmStamp *stamp);
extern void sm_sha256(const void *message, size_t len,
					  uint8 hash[SM_SHA256_LEN]);
extern char *sm_base64url(const void *bin, size_t len);
extern bool sm_base64url_decode(void *bin, size_t max, size_t *len,
								const char *text, size_t text_len);

extern void *sm_secure_alloc(size_t len);
extern void sm_secure_free(void *buf);
extern void sm_secure_readonly(void *buf);
extern bool sm_secure_relock(void *buf, size_t len);
extern void sm_hex_encode(char *hex, const uint8 *bin, size_t len);
extern bool sm_hex_decode(uint8 *bin, size_t len, const char *hex);

#endif							/* SM_CRYPTO_H */
