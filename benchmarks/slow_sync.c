/*
 * A disk whose sync takes 1 ms, simulated: loaded before the C library, so that every
 * fsync and fdatasync of a process waits first, whichever copy of SQLite makes the call.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <time.h>

typedef int (*sync_function)(int);

static void wait_one_millisecond(void)
{
    struct timespec left = {0, 1000000};
    while (nanosleep(&left, &left) == -1 && errno == EINTR) {
    }
}

int fsync(int descriptor)
{
    static sync_function real;
    if (!real)
        real = (sync_function)dlsym(RTLD_NEXT, "fsync");
    wait_one_millisecond();
    return real(descriptor);
}

int fdatasync(int descriptor)
{
    static sync_function real;
    if (!real)
        real = (sync_function)dlsym(RTLD_NEXT, "fdatasync");
    wait_one_millisecond();
    return real(descriptor);
}
