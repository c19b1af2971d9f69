/* Threads: the program's own team where it lends one (wb_use_team), and else a small pool, whose workers sleep on a
 * condition variable after a short, bounded spin. In the pool nobody waits for a worker that has not yet been scheduled:
 * the caller closes the job, and late workers find it closed.
 */
#include "internal.h"

#if defined(_WIN32)

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

static SRWLOCK call_lock = SRWLOCK_INIT;

void wb_lock(void) { AcquireSRWLockExclusive(&call_lock); }
void wb_unlock(void) { ReleaseSRWLockExclusive(&call_lock); }

/* No threads on Windows: the caller does it all. */
void wb_use_team(wb_team_run run, wb_team_size size) { (void)run, (void)size; }

void wb_parallel(int threads, int64_t n_tasks, wb_task run, void *context) {
    (void)threads;
    for (int64_t task = 0; task < n_tasks; task++) run(context, task, 0);
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

enum { SPINS = 1000 }; /* 10 to 40 microseconds */

static pthread_mutex_t call_lock = PTHREAD_MUTEX_INITIALIZER; /* one call at a time */
static pthread_once_t fork_handlers = PTHREAD_ONCE_INIT;

static struct {
    wb_team_run run;
    wb_team_size size;
} team; /* guarded by call_lock */

static struct {
    pthread_mutex_t lock; /* guards everything below but the atomics' reads */
    pthread_cond_t wake, done;
    int n_workers;
    atomic_uint generation; /* one more for each job */
    int open, joined, limit;
    atomic_int members; /* of a team that have come */
    atomic_int active;
    wb_task run;
    void *context;
    int64_t n_tasks;
    int n_ranges; /* one a thread */
} pool = {.lock = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER};

WB_INLINE void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* A fork waits for a running call; the child starts with no workers and no team, for threads do not survive a fork. */
static void before_fork(void) {
    pthread_mutex_lock(&call_lock);
    pthread_mutex_lock(&pool.lock);
}

static void after_fork_in_parent(void) {
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&call_lock);
}

static void after_fork_in_child(void) {
    pthread_mutex_init(&call_lock, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.wake, NULL);
    pthread_cond_init(&pool.done, NULL);
    pool.n_workers = 0;
    memset(&team, 0, sizeof team);
}

static void install_fork_handlers(void) { pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

void wb_lock(void) {
    pthread_once(&fork_handlers, install_fork_handlers);
    pthread_mutex_lock(&call_lock);
}

void wb_unlock(void) { pthread_mutex_unlock(&call_lock); }

/* Each thread has a range of tasks, whose memory lies together, and helps with the others' when its own is done. */
static struct {
    _Atomic int64_t next;
    char padding[56]; /* a cache line each */
} ranges[WB_MAX_THREADS];

static int64_t range_start(int range) { return pool.n_tasks * range / pool.n_ranges; }

static void deal(int threads, int64_t n_tasks, wb_task run, void *context) {
    pool.run = run;
    pool.context = context;
    pool.n_tasks = n_tasks;
    pool.n_ranges = threads;
    for (int range = 0; range < threads; range++) atomic_store(&ranges[range].next, range_start(range));
}

static void work_off(int worker) {
    for (int i = 0; i < pool.n_ranges; i++) {
        int range = (worker + i) % pool.n_ranges;
        int64_t end = range_start(range + 1), task;
        while ((task = atomic_fetch_add_explicit(&ranges[range].next, 1, memory_order_relaxed)) < end)
            pool.run(pool.context, task, worker);
    }
}

static void *worker_main(void *first_generation) {
    unsigned seen = (unsigned)(uintptr_t)first_generation;
    for (;;) {
        for (int spin = 0; spin < SPINS && atomic_load_explicit(&pool.generation, memory_order_relaxed) == seen; spin++)
            relax();
        pthread_mutex_lock(&pool.lock);
        while (atomic_load(&pool.generation) == seen) pthread_cond_wait(&pool.wake, &pool.lock);
        seen = atomic_load(&pool.generation);
        int takes_part = pool.open && pool.joined < pool.limit;
        int worker = takes_part ? ++pool.joined : 0;
        if (takes_part) atomic_fetch_add(&pool.active, 1);
        pthread_mutex_unlock(&pool.lock);
        if (!takes_part) continue;
        work_off(worker);
        pthread_mutex_lock(&pool.lock);
        if (atomic_fetch_sub(&pool.active, 1) == 1) pthread_cond_signal(&pool.done);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* With the lock held. A thread that cannot be had is no error: fewer share the work. */
static void start_workers(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for the program's own threads */
    while (pool.n_workers < wanted) {
        pthread_t thread;
        void *generation = (void *)(uintptr_t)atomic_load(&pool.generation);
        if (pthread_create(&thread, NULL, worker_main, generation) != 0) break;
        pthread_detach(thread);
        pool.n_workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void open_job(int workers, int64_t n_tasks, wb_task run, void *context) {
    pthread_mutex_lock(&pool.lock);
    start_workers(workers);
    deal(workers + 1, n_tasks, run, context);
    pool.open = 1;
    pool.joined = 0;
    pool.limit = workers;
    atomic_fetch_add(&pool.generation, 1);
    pthread_cond_broadcast(&pool.wake);
    pthread_mutex_unlock(&pool.lock);
}

/* Nobody may join from here on; wait for those who have. */
static void close_job(void) {
    pthread_mutex_lock(&pool.lock);
    pool.open = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int spin = 0; spin < SPINS && atomic_load(&pool.active); spin++) relax();
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.active)) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void wb_use_team(wb_team_run run, wb_team_size size) {
    wb_lock();
    team.run = run;
    team.size = size;
    wb_unlock();
}

static void team_member(void *limit) {
    int worker = atomic_fetch_add(&pool.members, 1);
    if (worker < *(const int *)limit) work_off(worker);
}

static void run_in_team(int threads, int64_t n_tasks, wb_task run, void *context) {
    deal(threads, n_tasks, run, context);
    atomic_store(&pool.members, 0);
    team.run(team_member, &threads, (unsigned)threads, 0);
}

void wb_parallel(int threads, int64_t n_tasks, wb_task run, void *context) {
    int workers = n_tasks < threads ? (int)n_tasks - 1 : threads - 1;
    if (workers < 1) {
        for (int64_t task = 0; task < n_tasks; task++) run(context, task, 0);
        return;
    }
    if (team.run && team.size && team.size() == threads) {
        run_in_team(threads, n_tasks, run, context);
        return;
    }
    open_job(workers, n_tasks, run, context);
    work_off(0);
    close_job();
}

#endif
