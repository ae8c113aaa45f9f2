/*-------------------------------------------------------------------------
 *
 * device.c
 *	  Which kind of device a user agent names: the family of the browser and
 *	  the operating system, without version numbers, so that an update makes
 *	  no other device of it.
 *
 * Browsers claim to be several others, for old servers' sake: of the names
 * that a user agent contains, the first one in the table counts.  What is no
 * browser goes by its first product name, as curl or an application does.
 *
 * A user agent is what the client says.  It does not tell two machines of one
 * kind apart, nor an iPad that asks for desktop pages from a Mac, nor a
 * browser that hides behind another's name, as Brave does behind Chrome's; and
 * anybody may send another's.
 *
 * No PostgreSQL header: this is tested alone.
 *
 *-------------------------------------------------------------------------
 */
#include "session/device.h"

#include <string.h>

#define lengthof(array) (sizeof(array) / sizeof((array)[0]))

/* A word of a user agent, and what it tells. */
typedef struct Word
{
	const char *word;
	const char *name;
} Word;

static const Word browsers[] = {
	{"HeadlessChrome", "Headless Chrome"},
	{"Electron", "Electron"},
	{"FBAN", "Facebook"},
	{"FBAV", "Facebook"},
	{"Instagram", "Instagram"},
	{"MicroMessenger", "WeChat"},
	{"GSA", "Google"},
	{"Edg", "Edge"},
	{"EdgA", "Edge"},
	{"EdgiOS", "Edge"},
	{"Edge", "Edge"},
	{"OPR", "Opera"},
	{"OPT", "Opera"},
	{"OPiOS", "Opera"},
	{"Opera", "Opera"},
	{"SamsungBrowser", "Samsung Internet"},
	{"Vivaldi", "Vivaldi"},
	{"YaBrowser", "Yandex"},
	{"DuckDuckGo", "DuckDuckGo"},
	{"Ddg", "DuckDuckGo"},
	{"UCBrowser", "UC Browser"},
	{"MiuiBrowser", "MIUI Browser"},
	{"HuaweiBrowser", "Huawei Browser"},
	{"Whale", "Whale"},
	{"SeaMonkey", "SeaMonkey"},
	{"Firefox", "Firefox"},
	{"FxiOS", "Firefox"},
	{"wv", "Android WebView"},
	{"CriOS", "Chrome"},
	{"Chrome", "Chrome"},
	{"Chromium", "Chrome"},
	{"Trident", "Internet Explorer"},
	{"MSIE", "Internet Explorer"},
	{"Safari", "Safari"},
	{"AppleWebKit", "WebKit"}
};

static const Word systems[] = {
	{"Windows", "Windows"},
	{"iPhone", "iPhone"},
	{"iPod", "iPhone"},
	{"iPad", "iPad"},
	{"Android", "Android"},
	{"CrOS", "ChromeOS"},
	{"Tizen", "Tizen"},
	{"Web0S", "webOS"},
	{"Macintosh", "macOS"},
	{"Darwin", "Darwin"},
	{"FreeBSD", "FreeBSD"},
	{"OpenBSD", "OpenBSD"},
	{"Linux", "Linux"}
};

static bool is_word(char c);
static size_t find(const Word *table, size_t n, const char *word, size_t len);

/*
 * The device that a user agent names, which must stay in memory as long as the
 * result is used.
 *
 * What is returned may be shown to people: a name that is not from the tables
 * consists of at most SM_MAX_BROWSER_LEN letters, digits, "-" and "_", so that
 * no client can have a sentence or an address sent to a user.
 */
SmDevice
sm_device(const char *user_agent, size_t len)
{
	size_t		browser = lengthof(browsers);
	size_t		system = lengthof(systems);
	size_t		first_len = 0;
	size_t		at = 0;
	SmDevice	device;

	while (at < len)
	{
		size_t		begin = at;
		size_t		found;

		while (at < len && is_word(user_agent[at]))
			at++;
		if (at == begin)
		{
			at++;
			continue;
		}
		if (begin == 0)
			first_len = at;
		found = find(browsers, browser, user_agent + begin, at - begin);
		if (found < browser)
			browser = found;
		found = find(systems, system, user_agent + begin, at - begin);
		if (found < system)
			system = found;
	}

	if (browser < lengthof(browsers))
	{
		device.browser = browsers[browser].name;
		device.browser_len = strlen(device.browser);
	}
	else
	{
		device.browser = user_agent;
		device.browser_len = first_len < SM_MAX_BROWSER_LEN ?
			first_len : SM_MAX_BROWSER_LEN;
	}
	device.system = system < lengthof(systems) ? systems[system].name : "";
	return device;
}

bool
sm_device_equal(const SmDevice *a, const SmDevice *b)
{
	return a->browser_len == b->browser_len &&
		(a->browser_len == 0 ||
		 memcmp(a->browser, b->browser, a->browser_len) == 0) &&
		strcmp(a->system, b->system) == 0;
}

/* Not by <ctype.h>, which asks the locale. */
static bool
is_word(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		(c >= '0' && c <= '9') || c == '_' || c == '-';
}

/*
 * The first place of a word among the first n of a table; n if it is not
 * there.
 */
static size_t
find(const Word *table, size_t n, const char *word, size_t len)
{
	for (size_t i = 0; i < n; i++)
		if (table[i].word[0] == word[0] && strlen(table[i].word) == len &&
			memcmp(table[i].word, word, len) == 0)
			return i;
	return n;
}
