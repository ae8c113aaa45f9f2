/*-------------------------------------------------------------------------
 *
 * client.h
 *	  Where a session is used from, as the application reports it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef SM_CLIENT_H
#define SM_CLIENT_H

#include "postgres.h"

#include "utils/inet.h"

#define SM_MAX_USER_AGENT_LEN 512

/* The bits before the address in an IPv4 address that is mapped into IPv6. */
#define SM_IPV4_MAPPED_BITS	96

/* A client; NULL stands for what is not known. */
typedef struct SmClient
{
	inet	   *ip;
	text	   *user_agent;
} SmClient;

/* The same without pointers, for shared memory and files. */
typedef struct SmFlatClient
{
	uint8		ip_len;			/* of the inet value; 0 for none */
	uint16		user_agent_len; /* 0 for none */
	char		ip[32];
	char		user_agent[SM_MAX_USER_AGENT_LEN];
} SmFlatClient;

/*
 * The network that client_binding compares, /24 (IPv4) or /48 (IPv6): its first
 * bytes, and zeroes.
 */
typedef struct SmNetwork
{
	uint8		len;			/* of "prefix", in bytes */
	uint8		prefix[6];
} SmNetwork;

extern const SmClient sm_no_client;

extern void sm_client_flatten(const SmClient *client, SmFlatClient *flat);
extern void sm_client_restore(const SmFlatClient *flat, SmClient *client);
extern bool sm_client_moved(inet *known, inet *seen);
extern SmNetwork sm_network(inet *ip);
extern bool sm_network_equal(const SmNetwork *a, const SmNetwork *b);
extern char *sm_network_text(const SmNetwork *network);
extern const uint8 *sm_ipv4_inside(inet *address);

#endif							/* SM_CLIENT_H */
