/*-------------------------------------------------------------------------
 *
 * proxy.c
 *	  A bad network: a TCP proxy before a Unix socket, told on standard input
 *	  how bad to be.
 *
 *	proxy SOCKET
 *
 * Prints the port of 127.0.0.1 that it listens on, and ends when its standard
 * input does.
 * Commands, a line each:
 *
 *	pass		forward
 *	hole		hold back what comes, in both directions, until told otherwise;
 *				new connections are accepted, and hang
 *	delay MS	delay each piece by up to MS
 *	chaos MS	the same, and now and then cut a connection, or
 *				let one hang for seconds
 *	cut			close all connections, once
 *
 * What a client has sent is delivered even if the client has gone meanwhile, as
 * a network may: a command can arrive long after its sender gave it up.
 *
 *-------------------------------------------------------------------------
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAIRS	256
#define ROOM	(1 << 17)
#define MAX_HANG	4000		/* ms */

/* One direction of a connection. */
typedef struct Way
{
	char		data[ROOM];
	size_t		len;
	int64_t		due;			/* ms; what is held is forwarded then */
	bool		ended;			/* nothing more will be read */
} Way;

typedef struct Pair
{
	int			fd[2];			/* client, server; -1: closed */
	Way			way[2];			/* from fd[i] to fd[!i] */
	int64_t		hangs_until;	/* ms */
} Pair;

static Pair *pairs[PAIRS];
static const char *target;
static enum
{
	PASS, HOLE, DELAY, CHAOS
}			mode = PASS;
static int	max_delay = 0;

static int64_t
now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static void
close_end(Pair *pair, int end)
{
	if (pair->fd[end] >= 0)
		close(pair->fd[end]);
	pair->fd[end] = -1;
	pair->way[end].ended = true;
}

static void
forget(int i)
{
	close_end(pairs[i], 0);
	close_end(pairs[i], 1);
	free(pairs[i]);
	pairs[i] = NULL;
}

static void
accept_client(int listener)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int			client = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
	int			server;
	int			yes = 1;

	if (client < 0)
		return;
	setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof(yes));
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", target);
	server = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (server >= 0 &&
		connect(server, (struct sockaddr *) &address, sizeof(address)) == 0)
		for (int i = 0; i < PAIRS; i++)
			if (pairs[i] == NULL)
			{
				pairs[i] = calloc(1, sizeof(Pair));
				if (pairs[i] == NULL)
					abort();
				pairs[i]->fd[0] = client;
				pairs[i]->fd[1] = server;
				return;
			}
	if (server >= 0)
		close(server);
	close(client);
}

static void
obey(void)
{
	static char line[256];
	static size_t len = 0;
	ssize_t		got = read(STDIN_FILENO, line + len, sizeof(line) - 1 - len);
	char	   *end;

	if (got <= 0)
		exit(0);
	len += (size_t) got;
	line[len] = '\0';
	while ((end = strchr(line, '\n')) != NULL)
	{
		*end = '\0';
		if (strcmp(line, "pass") == 0)
			mode = PASS;
		else if (strcmp(line, "hole") == 0)
			mode = HOLE;
		else if (sscanf(line, "delay %d", &max_delay) == 1)
			mode = DELAY;
		else if (sscanf(line, "chaos %d", &max_delay) == 1)
			mode = CHAOS;
		else if (strcmp(line, "cut") == 0)
		{
			for (int i = 0; i < PAIRS; i++)
				if (pairs[i] != NULL)
					forget(i);
		}
		else
		{
			fprintf(stderr, "proxy: unknown command %s\n", line);
			exit(2);
		}
		len -= (size_t) (end + 1 - line);
		memmove(line, end + 1, len + 1);
	}
}

static void
take(Pair *pair, int end)
{
	Way		   *way = &pair->way[end];
	ssize_t		got = read(pair->fd[end], way->data + way->len, ROOM - way->len);

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0)
	{
		way->ended = true;
		return;
	}
	if (way->len == 0)
		way->due = mode >= DELAY ? now_ms() + rand() % (max_delay + 1) : 0;
	way->len += (size_t) got;
	if (mode == CHAOS && rand() % 400 == 0)
		pair->hangs_until = now_ms() + MAX_HANG;
}

static void
give(Pair *pair, int end)
{
	Way		   *way = &pair->way[end];
	int			to = pair->fd[!end];
	ssize_t		sent;

	if (to < 0)
	{
		way->len = 0;
		return;
	}
	sent = send(to, way->data, way->len, MSG_NOSIGNAL);
	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (sent < 0)
	{
		way->len = 0;
		close_end(pair, !end);
		return;
	}
	way->len -= (size_t) sent;
	memmove(way->data, way->data + sent, way->len);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = {.sin_family = AF_INET};
	socklen_t	address_len = sizeof(address);
	int			listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

	if (argc != 2)
		return 2;
	target = argv[1];
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (listener < 0 ||
		bind(listener, (struct sockaddr *) &address, sizeof(address)) != 0 ||
		listen(listener, 64) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &address_len) != 0)
	{
		perror("proxy");
		return 1;
	}
	signal(SIGPIPE, SIG_IGN);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);

	for (;;)
	{
		struct pollfd fds[2 + 2 * PAIRS] = {{.fd = STDIN_FILENO,.events = POLLIN},
		{.fd = listener,.events = POLLIN}};
		int			timeout = mode == CHAOS ? 100 : -1;
		int64_t		now = now_ms();

		for (int i = 0; i < PAIRS; i++)
			for (int end = 0; end < 2; end++)
			{
				struct pollfd *fd = &fds[2 + 2 * i + end];
				Pair	   *pair = pairs[i];

				fd->fd = -1;
				if (pair == NULL || pair->hangs_until > now || mode == HOLE)
					continue;
				if (pair->way[end].len > 0)
				{
					/* held until it is due, then until there is room */
					if (pair->way[end].due > now)
					{
						int			wait = (int) (pair->way[end].due - now);

						if (timeout < 0 || wait < timeout)
							timeout = wait;
					}
					else
						give(pair, end);
				}
				if (pair->way[end].len > 0 && pair->way[end].due <= now)
					timeout = 1;
				if (!pair->way[end].ended && pair->way[end].len < ROOM)
				{
					fd->fd = pair->fd[end];
					fd->events = POLLIN;
				}
			}

		if (poll(fds, 2 + 2 * PAIRS, timeout) < 0 && errno != EINTR)
		{
			perror("proxy");
			return 1;
		}
		for (int i = 0; i < PAIRS; i++)
			for (int end = 0; end < 2; end++)
				if (pairs[i] != NULL && fds[2 + 2 * i + end].fd >= 0 &&
					(fds[2 + 2 * i + end].revents & (POLLIN | POLLHUP | POLLERR)) != 0)
				{
					take(pairs[i], end);
					if (pairs[i]->way[end].len > 0 && pairs[i]->way[end].due == 0)
						give(pairs[i], end);
				}
		for (int i = 0; i < PAIRS; i++)
		{
			Pair	   *pair = pairs[i];

			if (pair == NULL || pair->hangs_until > now || mode == HOLE)
				continue;
			if (mode == CHAOS && rand() % 20000 == 0)
				forget(i);
			else
				for (int end = 0; end < 2; end++)
					if (pair->way[end].ended && pair->way[end].len == 0)
					{
						/* one side has gone, and the other has all it sent */
						forget(i);
						break;
					}
		}
		if (fds[0].revents != 0)
			obey();
		if (fds[1].revents != 0)
			accept_client(listener);
	}
}
