/*-------------------------------------------------------------------------
 *
 * crypto.c
 *	  Seal, open, MAC and derive; the one file that includes sodium.h.
 *
 * Every input to a MAC or an AEAD is encoded without ambiguity: fixed-width
 * fields big-endian, text behind its length, a null tenant apart from an
 * empty one.
 *
 *	digest		SHA-256("session_manager token v1" || id || secret)
 *	K			BLAKE2b-256(key = master, "session_manager" || installation)
 *	subkeys		crypto_kdf from K, one context per purpose
 *	verifier	BLAKE2b-256(key = subkey, owner || digest)
 *	state MAC	SipHash-2-4-128(key = subkey, owner || rest of the row's state)
 *	seal		XChaCha20-Poly1305-IETF, random nonce
 *	signature	Ed25519, key pair from a subkey
 *	trust MAC	BLAKE2b-256(key = subkey, issuer || public key)
 *	stamp MAC	SipHash-2-4-128(key = subkey, subject || key id || time)
 *
 * A seal is
 *
 *	format 1 | flags 1 | nonce 24 | ciphertext and tag
 *
 * whose associated data is format, flags, key id, data version, times, owner
 * and, with a device's key, the id of the binding.  The plaintext is the binary form of two jsonb values, so that
 * opening does not parse:
 *
 *	length 4 | data, int-aligned | length 4 | auth | padding to 64 bytes
 *
 * or, as a flag says, with a device's key,
 *
 *	… | auth, int-aligned | length 4 | key | padding to 64 bytes
 *
 * where each length, in native byte order, counts the container that follows
 * it and stands where the varlena header will be; it is 0 for no auth.  The
 * length of the padded plaintext is all that a reader of the table learns.
 *
 * Sources: RFC 7693 (BLAKE2), RFC 8439 and draft-irtf-cfrg-xchacha-03
 * (XChaCha20-Poly1305), RFC 8032 (Ed25519), FIPS 180-4 (SHA-256), Aumasson and Bernstein,
 * "SipHash: a fast short-input PRF" (2012).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sodium.h>

#include "miscadmin.h"

#include "keys/crypto.h"
#include "keys/envelope.h"

#define SEAL_FORMAT			1
#define SEAL_BIG_ENDIAN		0x01	/* byte order of the plaintext */
#define SEAL_DEVICE			0x02	/* the plaintext has a device's key */
#define SEAL_NONCE_LEN		crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define SEAL_TAG_LEN		crypto_aead_xchacha20poly1305_ietf_ABYTES
#define SEAL_HEADER_LEN		(2 + SEAL_NONCE_LEN)
#define SEAL_PAD_BLOCK		64

#ifdef WORDS_BIGENDIAN
#define SEAL_BYTE_ORDER		SEAL_BIG_ENDIAN
#else
#define SEAL_BYTE_ORDER		0
#endif

/* id, expiry, and two names behind their lengths */
#define OWNER_MAX_LEN		(SM_ID_LEN + 8 + 2 * (4 + SM_MAX_NAME_LEN))
#define NO_TENANT			0xFFFFFFFFU

/*
 * four times, three numbers, verifier, address, flags; what an idle timeout,
 * an actor, a device and a rotation add
 */
#define STATE_MAX_LEN	(4 * 8 + 3 * 4 + SM_VERIFIER_LEN + 1 + SM_MAX_IP_LEN + 1 + \
						 8 + \
						 SM_ID_LEN + 4 + SM_MAX_NAME_LEN + \
						 SM_BINDING_ID_LEN + 2 * 8 + \
						 3 * 8 + 4 + SM_VERIFIER_LEN)

/* format and flags, two numbers, two times, owner, binding */
#define CONTEXT_MAX_LEN	(2 + 2 * 4 + 2 * 8 + OWNER_MAX_LEN + SM_BINDING_ID_LEN)

/* Which parts of a state are there. */
#define STATE_ROTATED			0x01
#define STATE_SUCCESSOR_USED	0x02
#define STATE_IDLE_TIMEOUT		0x04
#define STATE_ACTOR				0x08
#define STATE_DEVICE			0x10

StaticAssertDecl(SM_KEY_LEN == crypto_aead_xchacha20poly1305_ietf_KEYBYTES,
				 "seal key length");
StaticAssertDecl(SM_KEY_LEN == crypto_kdf_KEYBYTES, "kdf key length");
StaticAssertDecl(SM_DIGEST_LEN == crypto_hash_sha256_BYTES &&
				 SM_SHA256_LEN == crypto_hash_sha256_BYTES, "digest length");
StaticAssertDecl(SM_SEED_LEN == crypto_sign_SEEDBYTES &&
				 SM_PUBLIC_KEY_LEN == crypto_sign_PUBLICKEYBYTES &&
				 SM_SIGNATURE_LEN == crypto_sign_BYTES,
				 "seed, key and signature length");
StaticAssertDecl(SM_STATE_MAC_LEN == crypto_shorthash_siphashx24_BYTES &&
				 SM_STATE_KEY_LEN == crypto_shorthash_siphashx24_KEYBYTES,
				 "MAC and key length of a state");
StaticAssertDecl(SM_STAMP_MAC_LEN == crypto_shorthash_siphashx24_BYTES &&
				 SM_STAMP_KEY_LEN == crypto_shorthash_siphashx24_KEYBYTES,
				 "MAC and key length of a stamp");

/* envelope.c knows jsonb without PostgreSQL's headers */
StaticAssertDecl(SM_VARHDRSZ == VARHDRSZ && SM_INTALIGN(1) == INTALIGN(1),
				 "alignment of jsonb");
StaticAssertDecl(SM_JB_COUNT == JB_CMASK && SM_JB_SCALAR == JB_FSCALAR &&
				 SM_JB_OBJECT == JB_FOBJECT && SM_JB_ARRAY == JB_FARRAY,
				 "header of a jsonb container");
StaticAssertDecl(SM_JE_OFFLEN == JENTRY_OFFLENMASK &&
				 SM_JE_TYPE == JENTRY_TYPEMASK &&
				 SM_JE_HAS_OFF == JENTRY_HAS_OFF &&
				 SM_JE_STRING == JENTRY_ISSTRING &&
				 SM_JE_NUMERIC == JENTRY_ISNUMERIC &&
				 SM_JE_FALSE == JENTRY_ISBOOL_FALSE &&
				 SM_JE_TRUE == JENTRY_ISBOOL_TRUE &&
				 SM_JE_NULL == JENTRY_ISNULL &&
				 SM_JE_CONTAINER == JENTRY_ISCONTAINER,
				 "entry of a jsonb container");

static const char digest_domain[] = "session_manager token v1";
static const char installation_domain[] = "session_manager";

/*
 * Published, so that any program computes the same buckets.  It hides
 * nothing and must never change: stored session ids carry buckets.
 */
static const uint8 bucket_key[crypto_shorthash_KEYBYTES] = {
	's', 'e', 's', 's', 'i', 'o', 'n', '_',
	'b', 'u', 'c', 'k', 'e', 't', 'v', '1'
};

static uint8 *put_uint32(uint8 *p, uint32 value);
static uint8 *put_uint64(uint8 *p, uint64 value);
static uint8 *put_owner(uint8 *p, const SmOwner *owner);
static size_t put_context(uint8 *out, uint8 flags, const SmSealContext *context);
static Size content_len(const SmContent *content, Size *auth_at,
						Size *device_at);
static void put_value(uint8 *p, const Jsonb *value);
static void make_stamp_mac(const uint8 key[SM_STAMP_KEY_LEN], const void *subject,
						   size_t len, const SmStamp *stamp,
						   uint8 mac[SM_STAMP_MAC_LEN]);

/*
 * Start libsodium.  Called once per process that loads the library.
 */
void
sm_crypto_init(void)
{
	if (sodium_init() < 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not initialize libsodium")));
}

/* Unpredictable bytes from the kernel. */
void
sm_random(void *buf, size_t len)
{
	randombytes_buf(buf, len);
}

/* Erase a secret; not optimized away. */
void
sm_wipe(void *buf, size_t len)
{
	sodium_memzero(buf, len);
}

/* Compare in a time that does not depend on the contents. */
bool
sm_equal(const void *a, const void *b, size_t len)
{
	return sodium_memcmp(a, b, len) == 0;
}

/*
 * SipHash-2-4 of a user id under the published key.  The low 16 bits are the
 * user's bucket.
 */
uint64
sm_user_hash(const char *utf8, size_t len)
{
	uint8		out[crypto_shorthash_BYTES];
	uint64		hash = 0;

	if (crypto_shorthash(out, (const uint8 *) utf8, len, bucket_key) != 0)
		elog(ERROR, "could not hash a user id");
	/* SipHash is defined to give a little-endian number */
	for (int i = crypto_shorthash_BYTES - 1; i >= 0; i--)
		hash = (hash << 8) | out[i];
	return hash;
}

/*
 * The digest that stands for a token's secret everywhere below the caller.
 */
void
sm_token_digest(const uint8 id[SM_ID_LEN], const uint8 secret[SM_SECRET_LEN],
				uint8 digest[SM_DIGEST_LEN])
{
	uint8		buf[sizeof(digest_domain) - 1 + SM_ID_LEN + SM_SECRET_LEN];
	int			rc;

	memcpy(buf, digest_domain, sizeof(digest_domain) - 1);
	memcpy(buf + sizeof(digest_domain) - 1, id, SM_ID_LEN);
	memcpy(buf + sizeof(digest_domain) - 1 + SM_ID_LEN, secret, SM_SECRET_LEN);
	rc = crypto_hash_sha256(digest, buf, sizeof(buf));
	sodium_memzero(buf, sizeof(buf));
	if (rc != 0)
		elog(ERROR, "could not hash a token");
}

/*
 * Derive what a database uses from a master key.  "out" should be secure
 * memory.
 */
void
sm_derive_subkeys(const uint8 master[SM_KEY_LEN],
				  const uint8 installation_id[16], SmSubkeys *out)
{
	uint8		message[sizeof(installation_domain) - 1 + 16];
	uint8		k[crypto_kdf_KEYBYTES];
	int			rc;

	memcpy(message, installation_domain, sizeof(installation_domain) - 1);
	memcpy(message + sizeof(installation_domain) - 1, installation_id, 16);

	rc = crypto_generichash(k, sizeof(k), message, sizeof(message),
							master, SM_KEY_LEN);
	rc |= crypto_kdf_derive_from_key(out->seal, sizeof(out->seal),
									 1, "sm_seal_", k);
	rc |= crypto_kdf_derive_from_key(out->verifier, sizeof(out->verifier),
									 1, "sm_verif", k);
	rc |= crypto_kdf_derive_from_key(out->state, sizeof(out->state),
									 1, "sm_state", k);
	rc |= crypto_kdf_derive_from_key(out->signing, sizeof(out->signing),
									 1, "sm_sign_", k);
	rc |= crypto_kdf_derive_from_key(out->trust, sizeof(out->trust),
									 1, "sm_trust", k);
	rc |= crypto_kdf_derive_from_key(out->device, sizeof(out->device),
									 1, "sm_devic", k);
	rc |= crypto_kdf_derive_from_key(out->check, sizeof(out->check),
									 1, "sm_check", k);
	sodium_memzero(k, sizeof(k));
	if (rc != 0)
	{
		sodium_memzero(out, sizeof(*out));
		elog(ERROR, "could not derive session keys");
	}
}

/*
 * MAC that ties a token to its row.  The caller guarantees that the owner's
 * names are no longer than SM_MAX_NAME_LEN.
 */
void
sm_verifier(const uint8 key[SM_KEY_LEN], const SmOwner *owner,
			const uint8 digest[SM_DIGEST_LEN],
			uint8 verifier[SM_VERIFIER_LEN])
{
	uint8		message[OWNER_MAX_LEN + SM_DIGEST_LEN];
	uint8	   *p = put_owner(message, owner);

	memcpy(p, digest, SM_DIGEST_LEN);
	p += SM_DIGEST_LEN;
	if (crypto_generichash(verifier, SM_VERIFIER_LEN, message, p - message,
						   key, SM_KEY_LEN) != 0)
		elog(ERROR, "could not compute a session verifier");
}

/*
 * MAC over what a row says of its session, so that only rows as a whole can be
 * put back.  The same conditions, for the actor's name as well, and an address
 * of at most SM_MAX_IP_LEN.
 * Every read computes it, hence SipHash: BLAKE2b takes four times as long for
 * so short a message.
 */
void
sm_state_mac(const uint8 key[SM_STATE_KEY_LEN], const SmState *state,
			 uint8 mac[SM_STATE_MAC_LEN])
{
	uint8		message[OWNER_MAX_LEN + STATE_MAX_LEN];
	uint8	   *p = put_owner(message, &state->owner);

	p = put_uint64(p, (uint64) state->created_at);
	p = put_uint64(p, (uint64) state->authenticated_at);
	p = put_uint64(p, (uint64) state->expires_at);
	p = put_uint64(p, (uint64) state->ttl);
	p = put_uint32(p, (uint32) state->version);
	p = put_uint32(p, (uint32) state->key_id);
	p = put_uint32(p, (uint32) state->verifier_key_id);
	memcpy(p, state->verifier, SM_VERIFIER_LEN);
	p += SM_VERIFIER_LEN;
	*p++ = state->ip ? (uint8) state->ip_len : 0;
	if (state->ip)
	{
		memcpy(p, state->ip, state->ip_len);
		p += state->ip_len;
	}
	*p++ = (state->rotated ? STATE_ROTATED : 0) |
		(state->successor_used ? STATE_SUCCESSOR_USED : 0) |
		(state->idle_timeout != 0 ? STATE_IDLE_TIMEOUT : 0) |
		(state->actor_session_id ? STATE_ACTOR : 0) |
		(state->device_binding_id ? STATE_DEVICE : 0);
	if (state->idle_timeout != 0)
		p = put_uint64(p, (uint64) state->idle_timeout);
	if (state->actor_session_id)
	{
		memcpy(p, state->actor_session_id, SM_ID_LEN);
		p = put_uint32(p + SM_ID_LEN, (uint32) state->actor_len);
		memcpy(p, state->actor_id, state->actor_len);
		p += state->actor_len;
	}
	if (state->device_binding_id)
	{
		memcpy(p, state->device_binding_id, SM_BINDING_ID_LEN);
		p = put_uint64(p + SM_BINDING_ID_LEN, (uint64) state->device_bound_at);
		p = put_uint64(p, (uint64) state->device_proved_at);
	}
	if (state->rotated)
	{
		p = put_uint64(p, (uint64) state->rotated_at);
		p = put_uint64(p, (uint64) state->successor_used_at);
		p = put_uint64(p, (uint64) state->previous_valid_until);
		p = put_uint32(p, (uint32) state->previous_key_id);
		memcpy(p, state->previous_verifier, SM_VERIFIER_LEN);
		p += SM_VERIFIER_LEN;
	}
	if (crypto_shorthash_siphashx24(mac, message, p - message, key) != 0)
		elog(ERROR, "could not compute the MAC of a session");
}

/*
 * Seal a session's content for one row.
 */
bytea *
sm_seal(const uint8 key[SM_KEY_LEN], const SmSealContext *context,
		const SmContent *content)
{
	uint8		ad[CONTEXT_MAX_LEN];
	uint8		flags = SEAL_BYTE_ORDER | (content->device_key ? SEAL_DEVICE : 0);
	size_t		ad_len = put_context(ad, flags, context);
	Size		auth_at;
	Size		device_at;
	Size		plain_len = content_len(content, &auth_at, &device_at);
	Size		padded_max = plain_len + SEAL_PAD_BLOCK;
	size_t		padded_len;
	unsigned long long sealed_len;
	bytea	   *out = palloc0(VARHDRSZ + SEAL_HEADER_LEN + padded_max + SEAL_TAG_LEN);
	uint8	   *header = (uint8 *) VARDATA(out);
	uint8	   *nonce = header + 2;
	uint8	   *body = header + SEAL_HEADER_LEN;

	header[0] = SEAL_FORMAT;
	header[1] = flags;
	randombytes_buf(nonce, SEAL_NONCE_LEN);

	/* the plaintext is laid out where its ciphertext will be */
	put_value(body, content->data);
	put_value(body + auth_at, content->auth);
	if (content->device_key)
		put_value(body + device_at, content->device_key);

	if (sodium_pad(&padded_len, body, plain_len, SEAL_PAD_BLOCK, padded_max) != 0 ||
		crypto_aead_xchacha20poly1305_ietf_encrypt(body, &sealed_len,
												   body, padded_len,
												   ad, ad_len,
												   NULL, nonce, key) != 0)
	{
		sodium_memzero(body, padded_max);
		elog(ERROR, "could not seal session data");
	}
	SET_VARSIZE(out, VARHDRSZ + SEAL_HEADER_LEN + sealed_len);
	return out;
}

/*
 * Open a seal.  False if it is not what sm_seal makes for this row; then
 * nothing of it is returned.  The values share one allocation.
 */
bool
sm_open(const uint8 key[SM_KEY_LEN], const SmSealContext *context,
		const bytea *sealed, SmContent *content)
{
	uint8		ad[CONTEXT_MAX_LEN];
	const uint8 *header = (const uint8 *) VARDATA_ANY(sealed);
	Size		sealed_len = VARSIZE_ANY_EXHDR(sealed);
	const uint8 *body = header + SEAL_HEADER_LEN;
	Size		body_len;
	size_t		ad_len;
	uint8	   *plain;
	unsigned long long padded_len;
	size_t		plain_len;
	SmEnvelope	envelope;

	if (sealed_len < SEAL_HEADER_LEN + SEAL_TAG_LEN + SEAL_PAD_BLOCK ||
		header[0] != SEAL_FORMAT)
		return false;
	body_len = sealed_len - SEAL_HEADER_LEN;
	ad_len = put_context(ad, header[1], context);

	plain = palloc(body_len);
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain, &padded_len, NULL,
												   body, body_len,
												   ad, ad_len,
												   header + 2, key) != 0)
	{
		pfree(plain);
		return false;
	}

	/* authentic; a foreign machine can still be in the way */
	if ((header[1] & SEAL_BIG_ENDIAN) != SEAL_BYTE_ORDER)
	{
		sodium_memzero(plain, padded_len);
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("session data was sealed on a machine of the other byte order"),
				 errhint("Sessions cannot move between machines of different byte order; end them with session_invalidate_everything().")));
	}

	/*
	 * someone with the key may have sealed anything: never read past the end
	 */
	if (sodium_unpad(&plain_len, plain, padded_len, SEAL_PAD_BLOCK) != 0 ||
		!sm_envelope_parse(plain, plain_len, (header[1] & SEAL_DEVICE) != 0,
						   check_stack_depth, &envelope))
	{
		sodium_memzero(plain, padded_len);
		pfree(plain);
		return false;
	}
	content->data = (Jsonb *) plain;
	SET_VARSIZE(content->data, VARHDRSZ + envelope.data_len);
	content->auth = NULL;
	if (envelope.auth_len > 0)
	{
		content->auth = (Jsonb *) (plain + envelope.auth_at);
		SET_VARSIZE(content->auth, VARHDRSZ + envelope.auth_len);
	}
	content->device_key = NULL;
	if (envelope.device_len > 0)
	{
		content->device_key = (Jsonb *) (plain + envelope.device_at);
		SET_VARSIZE(content->device_key, VARHDRSZ + envelope.device_len);
	}
	return true;
}

/*
 * The public half of the key pair that a seed makes.
 */
void
sm_public_key(const uint8 seed[SM_SEED_LEN],
			  uint8 public_key[SM_PUBLIC_KEY_LEN])
{
	uint8		secret_key[crypto_sign_SECRETKEYBYTES];
	int			rc = crypto_sign_seed_keypair(public_key, secret_key, seed);

	sodium_memzero(secret_key, sizeof(secret_key));
	if (rc != 0)
		elog(ERROR, "could not derive a key pair");
}

/*
 * Sign a message.
 */
void
sm_sign(const uint8 seed[SM_SEED_LEN], const void *message, size_t len,
		uint8 signature[SM_SIGNATURE_LEN])
{
	uint8		public_key[SM_PUBLIC_KEY_LEN];
	uint8		secret_key[crypto_sign_SECRETKEYBYTES];
	int			rc = crypto_sign_seed_keypair(public_key, secret_key, seed);

	if (rc == 0)
		rc = crypto_sign_detached(signature, NULL, message, len, secret_key);
	sodium_memzero(secret_key, sizeof(secret_key));
	if (rc != 0)
		elog(ERROR, "could not sign a message");
}

/*
 * Has the owner of a public key signed this message?
 */
bool
sm_signed(const uint8 public_key[SM_PUBLIC_KEY_LEN], const void *message,
		  size_t len, const uint8 signature[SM_SIGNATURE_LEN])
{
	return crypto_sign_verify_detached(signature, message, len, public_key) == 0;
}

/*
 * Complete a proof or a challenge, whose key id and time are given.  "subject"
 * is what it is about, at most SM_STAMP_SUBJECT_LEN bytes.  SipHash as for a
 * row's state, because a read computes it.
 */
void
sm_stamp_mac(const uint8 key[SM_STAMP_KEY_LEN], const void *subject, size_t len,
			 SmStamp *stamp)
{
	make_stamp_mac(key, subject, len, stamp, stamp->mac);
}

/*
 * Is a stamp what sm_stamp_mac made for this subject?
 */
bool
sm_stamp_holds(const uint8 key[SM_STAMP_KEY_LEN], const void *subject, size_t len,
			   const SmStamp *stamp)
{
	uint8		mac[SM_STAMP_MAC_LEN];
	bool		holds;

	make_stamp_mac(key, subject, len, stamp, mac);
	holds = sm_equal(mac, stamp->mac, SM_STAMP_MAC_LEN);
	sodium_memzero(mac, sizeof(mac));
	return holds;
}

static void
make_stamp_mac(const uint8 key[SM_STAMP_KEY_LEN], const void *subject, size_t len,
			   const SmStamp *stamp, uint8 mac[SM_STAMP_MAC_LEN])
{
	uint8		message[SM_STAMP_SUBJECT_LEN + 4 + 8];
	uint8	   *p = message;

	Assert(len <= SM_STAMP_SUBJECT_LEN);
	memcpy(p, subject, len);
	p = put_uint32(p + len, stamp->key_id);
	p = put_uint64(p, (uint64) stamp->unix_us);
	if (crypto_shorthash_siphashx24(mac, message, p - message, key) != 0)
		elog(ERROR, "could not compute the MAC of a proof or a challenge");
}

/*
 * MAC over whose assertions are believed, so that writing to the table is not
 * enough to be one of them.
 */
void
sm_trust_mac(const uint8 key[SM_KEY_LEN], const uint8 issuer[16],
			 const uint8 public_key[SM_PUBLIC_KEY_LEN],
			 uint8 mac[SM_TRUST_MAC_LEN])
{
	uint8		message[16 + SM_PUBLIC_KEY_LEN];

	memcpy(message, issuer, 16);
	memcpy(message + 16, public_key, SM_PUBLIC_KEY_LEN);
	if (crypto_generichash(mac, SM_TRUST_MAC_LEN, message, sizeof(message),
						   key, SM_KEY_LEN) != 0)
		elog(ERROR, "could not compute the MAC of an issuer");
}

void
sm_sha256(const void *message, size_t len, uint8 hash[SM_SHA256_LEN])
{
	if (crypto_hash_sha256(hash, message, len) != 0)
		elog(ERROR, "could not hash a message");
}

/*
 * base64url without padding (RFC 4648, section 5), as a string.
 */
char *
sm_base64url(const void *bin, size_t len)
{
	size_t		size = sodium_base64_encoded_len(len, sodium_base64_VARIANT_URLSAFE_NO_PADDING);

	return sodium_bin2base64(palloc(size), size, bin, len,
							 sodium_base64_VARIANT_URLSAFE_NO_PADDING);
}

/*
 * The bytes of such a text, which need not be terminated.  False if it is not
 * what sm_base64url makes, or has more than max bytes.
 */
bool
sm_base64url_decode(void *bin, size_t max, size_t *len,
					const char *text, size_t text_len)
{
	return sodium_base642bin(bin, max, text, text_len, NULL, len, NULL,
							 sodium_base64_VARIANT_URLSAFE_NO_PADDING) == 0;
}

/*
 * Memory for keys: guarded, locked, left out of core dumps.
 */
void *
sm_secure_alloc(size_t len)
{
	void	   *buf = sodium_malloc(len);

	if (buf == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("could not allocate memory for session keys"),
				 errhint("Raise the server's limit of locked memory (RLIMIT_MEMLOCK).")));
	return buf;
}

/* Wipe and release what sm_secure_alloc returned; NULL is allowed. */
void
sm_secure_free(void *buf)
{
	sodium_free(buf);
}

/* Protect keys from being overwritten. */
void
sm_secure_readonly(void *buf)
{
	if (sodium_mprotect_readonly(buf) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_SYSTEM_ERROR),
				 errmsg("could not protect memory that holds session keys: %m")));
}

/* Lock keys again after a fork, which keeps their protection but no lock. */
bool
sm_secure_relock(void *buf, size_t len)
{
	return sodium_mlock(buf, len) == 0;
}

/* Lower-case hex in constant time; writes 2 * len characters and a zero. */
void
sm_hex_encode(char *hex, const uint8 *bin, size_t len)
{
	sodium_bin2hex(hex, len * 2 + 1, bin, len);
}

/* Exactly 2 * len hex digits, in constant time; false if any is not one. */
bool
sm_hex_decode(uint8 *bin, size_t len, const char *hex)
{
	size_t		got;

	return sodium_hex2bin(bin, len, hex, len * 2, NULL, &got, NULL) == 0 &&
		got == len;
}

static uint8 *
put_uint32(uint8 *p, uint32 value)
{
	for (int shift = 24; shift >= 0; shift -= 8)
		*p++ = (uint8) (value >> shift);
	return p;
}

static uint8 *
put_uint64(uint8 *p, uint64 value)
{
	p = put_uint32(p, (uint32) (value >> 32));
	return put_uint32(p, (uint32) value);
}

static uint8 *
put_owner(uint8 *p, const SmOwner *owner)
{
	memcpy(p, owner->session_id, SM_ID_LEN);
	p = put_uint64(p + SM_ID_LEN, (uint64) owner->absolute_expires_at);
	p = put_uint32(p, (uint32) owner->user_len);
	memcpy(p, owner->user_id, owner->user_len);
	p += owner->user_len;
	if (owner->tenant_id == NULL)
		return put_uint32(p, NO_TENANT);
	p = put_uint32(p, (uint32) owner->tenant_len);
	memcpy(p, owner->tenant_id, owner->tenant_len);
	return p + owner->tenant_len;
}

/* The associated data; returns its length. */
static size_t
put_context(uint8 *out, uint8 flags, const SmSealContext *context)
{
	uint8	   *p = out;

	*p++ = SEAL_FORMAT;
	*p++ = flags;
	p = put_uint32(p, context->key_id);
	p = put_uint32(p, context->version);
	p = put_uint64(p, (uint64) context->created_at);
	p = put_uint64(p, (uint64) context->authenticated_at);
	p = put_owner(p, &context->owner);
	if (flags & SEAL_DEVICE)
	{
		/* a key without a binding is none that sm_seal has sealed */
		if (context->device_binding_id)
			memcpy(p, context->device_binding_id, SM_BINDING_ID_LEN);
		else
			memset(p, 0, SM_BINDING_ID_LEN);
		p += SM_BINDING_ID_LEN;
	}
	return p - out;
}

/* Length of the plaintext before padding, and where its values begin. */
static Size
content_len(const SmContent *content, Size *auth_at, Size *device_at)
{
	Size		auth_end;

	*auth_at = INTALIGN(VARSIZE(content->data));
	auth_end = *auth_at + (content->auth ? VARSIZE(content->auth) : VARHDRSZ);
	*device_at = INTALIGN(auth_end);
	return content->device_key ? *device_at + VARSIZE(content->device_key) : auth_end;
}

/* Write a value behind its length, which is 0 for NULL. */
static void
put_value(uint8 *p, const Jsonb *value)
{
	uint32		length = value ? VARSIZE(value) - VARHDRSZ : 0;

	memcpy(p, &length, sizeof(length));
	if (length > 0)
		memcpy(p + VARHDRSZ, VARDATA(value), length);
}
