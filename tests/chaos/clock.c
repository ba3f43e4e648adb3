/* A clock of its own for a process that loads this first (LD_PRELOAD): the time of day is off by as
 * many nanoseconds as stand in the file that CHAOS_CLOCK names, now and whenever that changes. What
 * no step of a clock changes, CLOCK_MONOTONIC above all, stays as it is.
 *
 * Without headers, so that a compiler alone is enough: cc -shared -fPIC -nostdlib -o clock.so clock.c
 */

struct timespec { long sec, nsec; };
struct timeval { long sec, usec; };
typedef int clock_function(int, struct timespec *);

extern void *dlsym(void *, const char *);
extern char *getenv(const char *);
extern int open(const char *, int, ...);
extern int close(int);
extern void *mmap(void *, unsigned long, int, int, int, long);

enum { READ_ONLY = 0, PROT_READ = 1, MAP_SHARED = 1, REALTIME = 0, REALTIME_COARSE = 5 };
static const long SECOND = 1000000000;

static clock_function *real;
static const volatile long none;
static const volatile long *offset = &none;

static void begin(void) {
    const char *path = getenv("CHAOS_CLOCK");
    int file = path ? open(path, READ_ONLY) : -1;
    if (file >= 0) {
        void *mapped = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (mapped != (void *)-1) offset = mapped;
        close(file);
    }
    real = (clock_function *)dlsym((void *)-1, "clock_gettime"); /* RTLD_NEXT */
}

int clock_gettime(int which, struct timespec *out) {
    if (!real) begin();
    int result = real(which, out);
    if (result == 0 && (which == REALTIME || which == REALTIME_COARSE)) {
        long nanoseconds = out->nsec + *offset % SECOND;
        out->sec += *offset / SECOND;
        if (nanoseconds >= SECOND) { nanoseconds -= SECOND; out->sec += 1; }
        if (nanoseconds < 0) { nanoseconds += SECOND; out->sec -= 1; }
        out->nsec = nanoseconds;
    }
    return result;
}

int gettimeofday(struct timeval *out, void *zone) {
    struct timespec now;
    (void)zone;
    if (clock_gettime(REALTIME, &now)) return -1;
    out->sec = now.sec;
    out->usec = now.nsec / 1000;
    return 0;
}

long time(long *out) {
    struct timespec now;
    if (clock_gettime(REALTIME, &now)) return -1;
    if (out) *out = now.sec;
    return now.sec;
}
