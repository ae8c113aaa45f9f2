/*-------------------------------------------------------------------------
 *
 * redact.c
 *	  Keeps session tokens out of the server log.
 *
 * All that a log destination (stderr, csvlog, jsonlog, syslog) prints of a
 * message comes from its ErrorData, and the STATEMENT from
 * debug_query_string.  emit_log_hook sees both before any destination does,
 * and masks them here while session_manager.redact_tokens is on.
 *
 * Masked is every base64url character that follows the prefix of a token, a
 * digest form, a proof or a challenge, however many there are: what truncation
 * has left of a token still shortens a search for the rest.  What stands before the prefix does
 * not matter, so that a token glued to another word is masked as well.
 * Masking never changes a length: error positions stay true.
 *
 * The texts of ErrorData belong to the message and are masked in place; if
 * the message goes on to the client it is masked there, too.  The statement
 * is still being used and may be the parser's own input: it stays as it is,
 * and debug_query_string is pointed at a masked copy.  The copy lies in
 * MessageContext because that lives exactly as long as the client's message
 * whose text it replaces; extensions that run statements of their own save
 * debug_query_string and put it back, so nothing shorter would do.  Where no
 * copy can be made, the statement is left out.  A side effect is that
 * current_query() returns the masked text for the rest of the statement.
 *
 * The hook runs inside error reporting: it must not raise an error, and
 * allocates only with MCXT_ALLOC_NO_OOM.  It keeps no state.
 *
 * A hook that is installed after this one runs before it and sees what is
 * not masked yet.  Hooks that were there earlier see masked texts only.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "miscadmin.h"
#include "tcop/tcopprot.h"
#include "utils/memutils.h"

#include "guc.h"
#include "redact.h"

static emit_log_hook_type prev_emit_log_hook = NULL;

static bool is_base64url(char c);
static const char *find_token(const char *text);
static void mask_tokens(char *text);
static void mask_cut(char *text);
static void mask_statement(ErrorData *edata);
static void redact_emit_log(ErrorData *edata);

void
sm_redact_init(void)
{
	prev_emit_log_hook = emit_log_hook;
	emit_log_hook = redact_emit_log;
}

static void
redact_emit_log(ErrorData *edata)
{
	if (sm_redact_tokens)
	{
		mask_tokens(edata->message);
		mask_tokens(edata->detail);
		mask_tokens(edata->detail_log);
		mask_tokens(edata->hint);
		mask_tokens(edata->context);
		mask_cut(edata->context);
		mask_tokens(edata->internalquery);
		mask_tokens(edata->backtrace);
		mask_statement(edata);
	}

	if (prev_emit_log_hook)
		prev_emit_log_hook(edata);
}

/*
 * Make the STATEMENT of this message, and of those that follow it in the
 * same statement, a masked one.
 */
static void
mask_statement(ErrorData *edata)
{
	Size		size;
	char	   *copy = NULL;

	if (edata->hide_stmt || debug_query_string == NULL ||
		find_token(debug_query_string) == NULL)
		return;

	size = strlen(debug_query_string) + 1;

	/*
	 * Background and parallel workers have no MessageContext, and a critical
	 * section allows no allocation.
	 */
	if (MessageContext != NULL && CritSectionCount == 0 &&
		!in_error_recursion_trouble())
		copy = MemoryContextAllocExtended(MessageContext, size,
										  MCXT_ALLOC_HUGE |
										  MCXT_ALLOC_NO_OOM);

	if (copy == NULL)
	{
		edata->hide_stmt = true;
		return;
	}

	memcpy(copy, debug_query_string, size);
	mask_tokens(copy);
	debug_query_string = copy;
}

/*
 * Mask every token in a text, in place.
 */
static void
mask_tokens(char *text)
{
	if (text == NULL)
		return;

	while ((text = unconstify(char *, find_token(text))) != NULL)
	{
		do
			*text++ = '*';
		while (is_base64url(*text));
	}
}

/*
 * Mask what is left of a token whose beginning was cut off: the context of a
 * JSON error shows the end of a line behind three dots.
 */
static void
mask_cut(char *text)
{
	while (text != NULL && (text = strstr(text, "...")) != NULL)
		for (text += 3; is_base64url(*text); text++)
			*text = '*';
}

/*
 * First character to be masked in a text, or NULL.
 *
 * Most texts hold no token: a single strstr() for what all prefixes, sm1_,
 * sd1_, sp1_ and sc1_, end in is all the work there is for them.
 */
static const char *
find_token(const char *text)
{
	const char *found = text;

	while ((found = strstr(found, "1_")) != NULL)
	{
		const char *body = found + 2;

		if (found - text >= 2 &&
			found[-2] == 's' && strchr("mdpc", found[-1]) != NULL &&
			is_base64url(*body))
			return body;
		found = body;
	}

	return NULL;
}

/* isalnum() would follow the locale */
static bool
is_base64url(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
		(c >= '0' && c <= '9') || c == '-' || c == '_';
}
