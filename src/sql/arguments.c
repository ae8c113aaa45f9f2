/*-------------------------------------------------------------------------
 *
 * arguments.c
 *	  Arguments that several SQL functions take, checked alike.
 *
 * A message names a limit and a size, never what was passed.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "keys/crypto.h"
#include "session/lifecycle.h"
#include "sql/arguments.h"

#define MAX_REASON_LEN		64
#define MAX_ROWS			10000

static inet *arg_ip(FunctionCallInfo fcinfo, int n);
static text *arg_user_agent(FunctionCallInfo fcinfo, int n);
static text *required_text(FunctionCallInfo fcinfo, int n, const char *name,
						   int longest);
static void check_length(const text *value, const char *name, int longest);
static int64 interval_to_us(const Interval *interval);

/*
 * The schema of the function being called, if its first argument is a token;
 * NULL if it is null or malformed.
 */
const SmSchema *
sm_arg_token(FunctionCallInfo fcinfo, SmToken *token)
{
	const SmSchema *schema;

	if (PG_ARGISNULL(0))
		return NULL;
	schema = sm_called_schema(fcinfo);
	return sm_token_from_text(PG_GETARG_TEXT_PP(0), token) ? schema : NULL;
}

/*
 * A user id: 22004 if null, 22023 if empty or too long.
 */
text *
sm_arg_user_id(FunctionCallInfo fcinfo, int n)
{
	return required_text(fcinfo, n, "user_id", SM_MAX_NAME_LEN);
}

/*
 * A tenant id, or NULL.
 */
text *
sm_arg_tenant_id(FunctionCallInfo fcinfo, int n)
{
	text	   *tenant_id;

	if (PG_ARGISNULL(n))
		return NULL;
	tenant_id = PG_GETARG_TEXT_PP(n);
	check_length(tenant_id, "tenant_id", SM_MAX_NAME_LEN);
	return tenant_id;
}

/*
 * Whom an assertion is for.
 */
text *
sm_arg_audience(FunctionCallInfo fcinfo, int n)
{
	return required_text(fcinfo, n, "audience", SM_MAX_NAME_LEN);
}

/*
 * Why a session is ended.
 */
text *
sm_arg_reason(FunctionCallInfo fcinfo, int n)
{
	return required_text(fcinfo, n, "reason", MAX_REASON_LEN);
}

/*
 * A client: its address and, in the argument after that, its user agent.
 */
SmClient
sm_arg_client(FunctionCallInfo fcinfo, int n)
{
	SmClient	client = {arg_ip(fcinfo, n), arg_user_agent(fcinfo, n + 1)};

	return client;
}

/*
 * A client's address, or NULL.  An IPv4 address that is mapped into IPv6, as a
 * socket of both families tells it, is that IPv4 address: one client has one
 * address, whichever way it came.
 */
static inet *
arg_ip(FunctionCallInfo fcinfo, int n)
{
	inet	   *given;
	inet	   *ip;
	const uint8 *ipv4;

	if (PG_ARGISNULL(n))
		return NULL;
	given = PG_GETARG_INET_PP(n);
	ipv4 = sm_ipv4_inside(given);
	if (ipv4 == NULL || ip_family(given) == PGSQL_AF_INET)
		return given;

	/* zeroed, for the macros: see utils/inet.h */
	ip = (inet *) palloc0(sizeof(inet));
	ip_family(ip) = PGSQL_AF_INET;
	ip_bits(ip) = ip_bits(given) - SM_IPV4_MAPPED_BITS;
	memcpy(ip_addr(ip), ipv4, ip_addrsize(ip));
	SET_INET_VARSIZE(ip);
	return ip;
}

/*
 * A client's user agent, cut to what is stored, or NULL.
 */
static text *
arg_user_agent(FunctionCallInfo fcinfo, int n)
{
	text	   *value;
	int			len;

	if (PG_ARGISNULL(n))
		return NULL;
	value = PG_GETARG_TEXT_PP(n);
	len = VARSIZE_ANY_EXHDR(value);
	if (len <= SM_MAX_USER_AGENT_LEN)
		return value;
	return cstring_to_text_with_len(VARDATA_ANY(value),
									pg_mbcliplen(VARDATA_ANY(value), len,
												 SM_MAX_USER_AGENT_LEN));
}

/*
 * A JSON object, or NULL: 22023 if it is JSON but no object, 54000 if it is
 * larger than session_manager.max_data_size.
 */
Jsonb *
sm_arg_object(FunctionCallInfo fcinfo, int n, const char *name)
{
	Jsonb	   *object;

	if (PG_ARGISNULL(n))
		return NULL;
	object = PG_GETARG_JSONB_P(n);
	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be a JSON object", name)));
	sm_check_size(object, name);
	return object;
}

/*
 * A lifetime in microseconds, or 0 if null: 22023 unless it is positive and at
 * most "longest", which a setting says, and to which it may be clamped instead.
 */
int64
sm_arg_lifetime(FunctionCallInfo fcinfo, int n, const char *name,
				const char *setting, int64 longest, bool clamp)
{
	int64		us;

	if (PG_ARGISNULL(n))
		return 0;
	us = interval_to_us(PG_GETARG_INTERVAL_P(n));
	if (us <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be greater than zero", name)));
	if (us > longest && !clamp)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than %s", name, setting),
				 errdetail("The limit is %lld seconds.",
						   (long long) (longest / USECS_PER_SEC))));
	return Min(us, longest);
}

/*
 * How many rows to return at most.
 */
int
sm_arg_max_rows(FunctionCallInfo fcinfo, int n)
{
	int			max_rows;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("max_rows must not be null")));
	max_rows = PG_GETARG_INT32(n);
	if (max_rows < 1 || max_rows > MAX_ROWS)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_rows must be between 1 and %d", MAX_ROWS)));
	return max_rows;
}

static text *
required_text(FunctionCallInfo fcinfo, int n, const char *name, int longest)
{
	text	   *value;

	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", name)));
	value = PG_GETARG_TEXT_PP(n);
	check_length(value, name, longest);
	return value;
}

static void
check_length(const text *value, const char *name, int longest)
{
	int			len = VARSIZE_ANY_EXHDR(value);

	if (len == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", name)));
	if (len > longest)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be longer than %d bytes", name, longest),
				 errdetail("It is %d bytes long.", len)));
}

/*
 * Days of 24 hours, months of 30 days: a session's lifetime does not depend
 * on a time zone.  What cannot be counted becomes the extreme value, as
 * PostgreSQL 17's infinite intervals do, which hold it in every field.
 */
static int64
interval_to_us(const Interval *interval)
{
	int64		days = (int64) interval->month * 30 + interval->day;
	int64		us;

	if (interval->time == PG_INT64_MAX || interval->time == PG_INT64_MIN)
		return interval->time;
	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, interval->time, &us))
		return days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return us;
}
