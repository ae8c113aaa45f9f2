/*
 * A library to preload: clocks that a test sets.  The file that SHIFT_CLOCK
 * names holds two numbers of seconds, as int64, that the wall clock and the
 * monotonic clock are ahead of the real ones.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile const int64_t *shifts;

__attribute__((constructor)) static void
begin(void)
{
	const char *path = getenv("SHIFT_CLOCK");
	int			fd = path ? open(path, O_RDONLY) : -1;
	void	   *mapped;

	if (fd < 0)
		return;
	mapped = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
	if (mapped != MAP_FAILED)
		shifts = mapped;
	close(fd);
}

int
clock_gettime(clockid_t id, struct timespec *at)
{
	static int	(*real) (clockid_t, struct timespec *);
	int			result;

	if (!real)
		*(void **) &real = dlsym(RTLD_NEXT, "clock_gettime");
	result = real(id, at);
	if (result == 0 && shifts && id == CLOCK_REALTIME)
		at->tv_sec += shifts[0];
	else if (result == 0 && shifts && id == CLOCK_MONOTONIC)
		at->tv_sec += shifts[1];
	return result;
}

int
gettimeofday(struct timeval *at, void *zone)
{
	struct timespec now;

	(void) zone;
	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return -1;
	at->tv_sec = now.tv_sec;
	at->tv_usec = now.tv_nsec / 1000;
	return 0;
}

time_t
time(time_t *at)
{
	struct timespec now;

	if (clock_gettime(CLOCK_REALTIME, &now) != 0)
		return (time_t) -1;
	if (at)
		*at = now.tv_sec;
	return now.tv_sec;
}
