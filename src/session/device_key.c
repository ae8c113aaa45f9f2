/*-------------------------------------------------------------------------
 *
 * device_key.c
 *	  The public key of a device, as a JSON Web Key.
 *
 * Of a key only those members are kept that make the key (RFC 7518, section
 * 6): "kty", "crv", "x" and "y" of an elliptic curve, "kty", "n" and "e" of
 * RSA.  Those are the ones, too, that its thumbprint covers (RFC 7638), so that
 * one key has one thumbprint, however it was sent.  Whether the point is on the
 * curve is for whoever checks signatures.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"

#include "keys/crypto.h"
#include "session/device_key.h"

/* ES256: P-256.  RS256: 2,048 to 4,096 bits. */
#define COORDINATE_LEN		32
#define MIN_MODULUS_LEN		256
#define MAX_MODULUS_LEN		512
#define MAX_EXPONENT_LEN	8

static char *canonical(Jsonb *key, const char **problem);
static char *number(Jsonb *key, const char *name, size_t min, size_t max,
					const char **problem);
static char *member(Jsonb *key, const char *name);

/*
 * A key of a device without what does not make it a key.  22023 if it is none
 * that a browser uses, or not a public one.
 */
Jsonb *
sm_device_key_check(Jsonb *key)
{
	const char *problem = NULL;
	char	   *members = NULL;

	/* whoever sends the private half has misunderstood something */
	if (member(key, "d") != NULL)
		problem = "It is a private key.";
	else
		members = canonical(key, &problem);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid key of a device"),
				 errdetail_internal("%s", problem),
				 errhint("Pass a public JSON Web Key of P-256 or RSA.")));
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(members)));
}

/*
 * The thumbprint of a key that sm_device_key_check returned, 43 characters.
 * NULL if it is none: whoever has the extension's key may have sealed anything.
 */
text *
sm_device_key_thumbprint(Jsonb *key)
{
	const char *problem = NULL;
	char	   *members = canonical(key, &problem);
	uint8		hash[SM_SHA256_LEN];

	if (problem != NULL)
		return NULL;
	sm_sha256(members, strlen(members), hash);
	return cstring_to_text(sm_base64url(hash, sizeof(hash)));
}

/*
 * What the thumbprint is of: the members in their order, without spaces.  Sets
 * *problem if the key is none.
 */
static char *
canonical(Jsonb *key, const char **problem)
{
	char	   *type = member(key, "kty");

	if (type != NULL && strcmp(type, "EC") == 0)
	{
		char	   *curve = member(key, "crv");
		char	   *x = number(key, "x", COORDINATE_LEN, COORDINATE_LEN, problem);
		char	   *y = number(key, "y", COORDINATE_LEN, COORDINATE_LEN, problem);

		if (curve == NULL || strcmp(curve, "P-256") != 0)
			*problem = "Its curve is not P-256.";
		if (*problem != NULL)
			return NULL;
		return psprintf("{\"crv\":\"P-256\",\"kty\":\"EC\",\"x\":\"%s\",\"y\":\"%s\"}",
						x, y);
	}
	if (type != NULL && strcmp(type, "RSA") == 0)
	{
		char	   *e = number(key, "e", 1, MAX_EXPONENT_LEN, problem);
		char	   *n = number(key, "n", MIN_MODULUS_LEN, MAX_MODULUS_LEN, problem);

		if (*problem != NULL)
			return NULL;
		return psprintf("{\"e\":\"%s\",\"kty\":\"RSA\",\"n\":\"%s\"}", e, n);
	}
	*problem = "Its type is neither EC nor RSA.";
	return NULL;
}

/*
 * A member that is a number of min to max bytes, in base64url.  Sets *problem
 * if it is not.
 */
static char *
number(Jsonb *key, const char *name, size_t min, size_t max,
	   const char **problem)
{
	char	   *value = member(key, name);
	uint8		bytes[MAX_MODULUS_LEN];
	size_t		len;

	if (value == NULL ||
		!sm_base64url_decode(bytes, max, &len, value, strlen(value)) ||
		len < min)
		*problem = psprintf("Its member \"%s\" is not a number of the right size.", name);
	/* only coordinates may begin with zeroes (RFC 7518, sections 2 and 6) */
	else if (min != max && bytes[0] == 0)
		*problem = psprintf("Its member \"%s\" begins with a zero.", name);
	return value;
}

/* NULL unless it is a text. */
static char *
member(Jsonb *key, const char *name)
{
	JsonbValue *value = getKeyJsonValueFromContainer(&key->root, name,
													 strlen(name), NULL);

	if (value == NULL || value->type != jbvString)
		return NULL;
	return pnstrdup(value->val.string.val, value->val.string.len);
}
