/*
 * Counts the syncs of a process, and can make each of them take longer: loaded before the C
 * library, so that every fsync and fdatasync comes here first, whichever copy of SQLite makes
 * the call. TERTULIA_BENCH_SYNC_NANOSECONDS, below a second, is how long each waits.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <time.h>

typedef int (*sync_function)(int);

static unsigned long counted;
static long delay;

__attribute__((constructor)) static void read_delay(void)
{
    const char *given = getenv("TERTULIA_BENCH_SYNC_NANOSECONDS");
    delay = given ? atol(given) : 0;
}

unsigned long tertulia_bench_syncs(void)
{
    return __atomic_load_n(&counted, __ATOMIC_SEQ_CST);
}

static void count_and_wait(void)
{
    struct timespec left = {0, delay};
    __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
    while (delay && nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

int fsync(int descriptor)
{
    static sync_function real;
    if (!real)
        real = (sync_function)dlsym(RTLD_NEXT, "fsync");
    count_and_wait();
    return real(descriptor);
}

int fdatasync(int descriptor)
{
    static sync_function real;
    if (!real)
        real = (sync_function)dlsym(RTLD_NEXT, "fdatasync");
    count_and_wait();
    return real(descriptor);
}
