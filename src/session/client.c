/*-------------------------------------------------------------------------
 *
 * client.c
 *	  Where a session is used from, as the application reports it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <sys/socket.h>

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"

#include "compat.h"
#include "session/client.h"

/* Networks that client_binding compares, in bytes: /24 and /48. */
#define BINDING_IPV4	3
#define BINDING_IPV6	6

const SmClient sm_no_client = {NULL, NULL};

/*
 * Copy what is known of a client over what a flat copy has, cutting it to the
 * room there is.  Called under locks: nothing here can raise an error.
 */
void
sm_client_flatten(const SmClient *client, SmFlatClient *flat)
{
	if (client->ip != NULL)
	{
		flat->ip_len = Min(VARSIZE_ANY(client->ip), sizeof(flat->ip));
		memcpy(flat->ip, client->ip, flat->ip_len);
	}
	if (client->user_agent != NULL)
	{
		flat->user_agent_len = Min(VARSIZE_ANY_EXHDR(client->user_agent),
								   SM_MAX_USER_AGENT_LEN);
		memcpy(flat->user_agent, VARDATA_ANY(client->user_agent),
			   flat->user_agent_len);
	}
}

/*
 * Take a flat copy for a client, in which what is not well-formed is not
 * known: the file of an immediate shutdown may hold what was half copied.
 */
void
sm_client_restore(const SmFlatClient *flat, SmClient *client)
{
	inet	   *ip = (inet *) flat->ip;

	*client = sm_no_client;
	if (flat->ip_len > 0 && flat->ip_len <= sizeof(flat->ip) &&
		VARSIZE_ANY(ip) == flat->ip_len &&
		(ip_family(ip) == PGSQL_AF_INET || ip_family(ip) == PGSQL_AF_INET6) &&
		ip_bits(ip) <= ip_maxbits(ip))
		client->ip = ip;
	if (flat->user_agent_len > 0 &&
		flat->user_agent_len <= SM_MAX_USER_AGENT_LEN &&
		pg_verifymbstr(flat->user_agent, flat->user_agent_len, true))
		client->user_agent = cstring_to_text_with_len(flat->user_agent,
													  flat->user_agent_len);
}

/*
 * Is an address outside the network that a session is bound to?  An address
 * that is not given is outside of every network; a session without one is
 * bound to none.
 */
bool
sm_client_moved(inet *known, inet *seen)
{
	SmNetwork	known_network;
	SmNetwork	seen_network;

	if (known == NULL)
		return false;
	if (seen == NULL)
		return true;
	known_network = sm_network(known);
	seen_network = sm_network(seen);
	return !sm_network_equal(&known_network, &seen_network);
}

/*
 * The network that an address is in.
 */
SmNetwork
sm_network(inet *ip)
{
	const uint8 *ipv4 = sm_ipv4_inside(ip);
	SmNetwork	network = {ipv4 ? BINDING_IPV4 : BINDING_IPV6, {0}};

	memcpy(network.prefix, ipv4 ? ipv4 : ip_addr(ip), network.len);
	return network;
}

bool
sm_network_equal(const SmNetwork *a, const SmNetwork *b)
{
	return a->len == b->len && memcmp(a->prefix, b->prefix, a->len) == 0;
}

/*
 * A network as text, such as "192.0.2.0/24".
 */
char *
sm_network_text(const SmNetwork *network)
{
	/* zeroed, for the macros: see utils/inet.h */
	inet	   *ip = palloc0(sizeof(inet));

	ip_family(ip) = network->len == BINDING_IPV4 ? PGSQL_AF_INET : PGSQL_AF_INET6;
	ip_bits(ip) = network->len * BITS_PER_BYTE;
	memcpy(ip_addr(ip), network->prefix, network->len);
	SET_INET_VARSIZE(ip);
	return DatumGetCString(DirectFunctionCall1(inet_out, InetPGetDatum(ip)));
}

/*
 * The four bytes of an IPv4 address, mapped into IPv6 (RFC 4291) or not, or
 * NULL.  A network that is wider than all that are mapped is none.
 */
const uint8 *
sm_ipv4_inside(inet *address)
{
	static const uint8 mapped[SM_IPV4_MAPPED_BITS / 8] =
	{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};

	if (ip_family(address) == PGSQL_AF_INET)
		return ip_addr(address);
	if (ip_bits(address) >= SM_IPV4_MAPPED_BITS &&
		memcmp(ip_addr(address), mapped, sizeof(mapped)) == 0)
		return ip_addr(address) + sizeof(mapped);
	return NULL;
}
