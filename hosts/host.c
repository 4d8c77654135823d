/*
 * A C program with signal handlers of its own: host SCENE DIRECTORY LIBRARY
 *
 * It ends with 0 where what is promised is what happened; a scene that must die of a signal is run by .ci/hosts, which
 * looks at the signal.
 */
#define _GNU_SOURCE
#include "mapfall_host.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGES 16
#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            exit(1); \
        } \
    } while (0)

static __typeof__(mapfall_host_open) *open_file;
static __typeof__(mapfall_host_read_at) *read_at;
static __typeof__(mapfall_host_stats) *get_stats;
static __typeof__(mapfall_host_close) *close_file;

static void *library;
static size_t page;
static char path[4096], own_path[4096];
static int writable;

static void load(const char *name) {
    library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    *(void **)&open_file = dlsym(library, "mapfall_host_open");
    *(void **)&read_at = dlsym(library, "mapfall_host_read_at");
    *(void **)&get_stats = dlsym(library, "mapfall_host_stats");
    *(void **)&close_file = dlsym(library, "mapfall_host_close");
    CHECK(open_file && read_at && get_stats && close_file);
}

/* Any byte of the file is not zero. */
static uint8_t byte_at(size_t offset) { return (uint8_t)(offset / 512 + offset) | 1; }

static void make_whole(void) {
    static uint8_t bytes[PAGES * 65536];
    for (size_t i = 0; i < PAGES * page; i++)
        bytes[i] = byte_at(i);
    CHECK(pwrite(writable, bytes, PAGES * page, 0) == (ssize_t)(PAGES * page));
}

static struct mapfall_stats stats(struct mapfall_file *file) {
    struct mapfall_stats found;
    get_stats(file, &found);
    return found;
}

/* Set while another thread cuts the file: what is being cut may be zero already, by pread(2) too. */
static volatile int being_cut;

static int read_page(struct mapfall_file *file, size_t number) {
    uint8_t buf[4096] = {0};
    int status = read_at(file, number * page, buf, sizeof buf);
    for (size_t i = 0; status == MAPFALL_OK && i < sizeof buf; i++)
        CHECK(buf[i] == byte_at(number * page + i) || (being_cut && buf[i] == 0));
    return status;
}

static struct mapfall_file *opened(void) {
    struct mapfall_file *file = open_file(path, MAPFALL_MMAP);
    CHECK(file);
    CHECK(read_page(file, 3) == MAPFALL_OK && stats(file).mmap_reads == 1);
    return file;
}

/* The file is cut, and a read faults; then it is whole again. */
static void recovers(struct mapfall_file *file, int faults) {
    uint64_t before = stats(file).faults_recovered;
    CHECK(ftruncate(writable, (off_t)page) == 0);
    CHECK(read_page(file, 3) == MAPFALL_PAST_END);
    CHECK(stats(file).faults_recovered == before + (uint64_t)faults);
    make_whole();
    CHECK(read_page(file, 3) == MAPFALL_OK);
    CHECK(stats(file).paths_add_up);
}

/* A map of our own, every page of which faults. */
static volatile uint8_t *own_map(void) {
    int fd = open(own_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    void *map = mmap(NULL, page, PROT_READ, MAP_SHARED, fd, 0);
    CHECK(map != MAP_FAILED);
    close(fd);
    return map;
}

static sigjmp_buf escape;
static volatile sig_atomic_t escapes, passed_on;
static void *volatile own_address;
static struct sigaction underneath;

static void escape_from(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    if (info->si_addr == own_address) {
        escapes++;
        siglongjmp(escape, 1);
    }
    _exit(9); /* a fault that is not ours */
}

static void escape_or_pass_on(int signal, siginfo_t *info, void *context) {
    if (info->si_addr == own_address) {
        escapes++;
        siglongjmp(escape, 1);
    }
    passed_on++;
    underneath.sa_sigaction(signal, info, context);
}

static void install(void (*handler)(int, siginfo_t *, void *)) {
    struct sigaction action = {0};
    action.sa_sigaction = handler;
    action.sa_flags = SA_SIGINFO;
    CHECK(sigaction(SIGBUS, &action, &underneath) == 0);
}

static void own_fault_is_ours(void) {
    volatile uint8_t *map = own_map();
    int before = escapes;
    own_address = (void *)map;
    if (sigsetjmp(escape, 1) == 0) {
        (void)*map;
        CHECK(!"the byte is not there");
    }
    CHECK(escapes == before + 1);
    munmap((void *)map, page);
}

/* A handler that was there before: ours comes first and passes on. */
static void before(void) {
    install(escape_from);
    struct mapfall_file *file = opened();
    recovers(file, 1);
    own_fault_is_ours();
    recovers(file, 1);
    own_fault_is_ours();
    close_file(file);
}

/* One that comes later and passes nothing on: the library notices, and the map stands aside. */
static void after(void) {
    struct mapfall_file *file = opened();
    install(escape_from);
    for (int i = 0; i < 20000; i++)
        CHECK(read_page(file, (size_t)i % PAGES) == MAPFALL_OK);
    CHECK(stats(file).handler_replaced > 5000);
    own_fault_is_ours();
    recovers(file, 0);
    own_fault_is_ours();
    CHECK(sigaction(SIGBUS, &underneath, NULL) == 0);
    uint64_t mapped = stats(file).mmap_reads;
    for (int i = 0; i < 20000; i++)
        CHECK(read_page(file, (size_t)i % PAGES) == MAPFALL_OK);
    CHECK(stats(file).mmap_reads > mapped + 5000); /* it is back */
    recovers(file, 1);
    close_file(file);
}

/* One that comes later and passes on what is not its own. */
static void after_passing_on(void) {
    struct mapfall_file *file = opened();
    install(escape_or_pass_on);
    recovers(file, 1);
    CHECK(passed_on == 1);
    own_fault_is_ours();
    CHECK(read_page(file, 3) == MAPFALL_OK);
    close_file(file);
}

static void *read_blocked(void *file) {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGBUS);
    CHECK(pthread_sigmask(SIG_BLOCK, &set, NULL) == 0);
    CHECK(read_page(file, 3) == MAPFALL_OK);
    CHECK(stats(file).signal_blocked == 1);
    recovers(file, 0);
    CHECK(stats(file).signal_blocked == 3);
    CHECK(pthread_sigmask(SIG_UNBLOCK, &set, NULL) == 0);
    recovers(file, 1);
    CHECK(stats(file).signal_blocked == 3);
    return NULL;
}

/* A thread that blocks the signal: served by system calls. */
static void blocked(void) {
    struct mapfall_file *file = opened();
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, read_blocked, file) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
    close_file(file);
}

static volatile int stopped;

static void *read_much(void *file) {
    uint64_t reads = 0, cut = 0;
    for (unsigned i = 0; !stopped; i++, reads++) {
        int status = read_page(file, i * 7 % PAGES);
        CHECK(status == MAPFALL_OK || status == MAPFALL_PAST_END);
        cut += status == MAPFALL_PAST_END;
    }
    CHECK(reads > 0);
    return (void *)(uintptr_t)cut;
}

/* Threads with small stacks and no other one, while the file is cut and written again. */
static void threads(void) {
    install(escape_from);
    struct mapfall_file *file = opened();
    pthread_t thread[4];
    pthread_attr_t attributes;
    uint64_t cut = 0;
    being_cut = 1;
    CHECK(pthread_attr_init(&attributes) == 0 && pthread_attr_setstacksize(&attributes, 64 << 10) == 0);
    for (int i = 0; i < 4; i++)
        CHECK(pthread_create(&thread[i], &attributes, read_much, file) == 0);
    for (time_t end = time(NULL) + 3; time(NULL) < end;) {
        CHECK(ftruncate(writable, (off_t)page) == 0);
        usleep(200);
        make_whole();
        usleep(200);
        own_fault_is_ours();
    }
    stopped = 1;
    for (int i = 0; i < 4; i++) {
        void *found;
        CHECK(pthread_join(thread[i], &found) == 0);
        cut += (uintptr_t)found;
    }
    struct mapfall_stats found = stats(file);
    printf("%lu reads, %lu of them past the end, %lu faults recovered, %d of the host's own\n", found.reads, cut,
           found.faults_recovered, (int)escapes);
    CHECK(cut > 0 && found.faults_recovered > 0 && found.paths_add_up);
    close_file(file);
}

/* Nobody else has a handler: a fault of the host's own is fatal, as ever. */
static void fatal(void) {
    struct mapfall_file *file = opened();
    recovers(file, 1);
    (void)*own_map();
    CHECK(!"the byte is not there");
}

/* The library is closed, and its handler is still there to pass on. */
static void unloaded(void) {
    install(escape_from);
    struct mapfall_file *file = opened();
    recovers(file, 1);
    close_file(file);
    CHECK(dlclose(library) == 0);
    own_fault_is_ours();
}

static const struct {
    const char *name;
    void (*run)(void);
} SCENES[] = {
    {"before", before},   {"after", after}, {"after_passing_on", after_passing_on}, {"blocked", blocked},
    {"threads", threads}, {"fatal", fatal}, {"unloaded", unloaded},
};

int main(int argc, char **argv) {
    CHECK(argc == 4);
    page = (size_t)sysconf(_SC_PAGESIZE);
    snprintf(path, sizeof path, "%s/c-%s", argv[2], argv[1]);
    snprintf(own_path, sizeof own_path, "%s/c-%s-own", argv[2], argv[1]);
    writable = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(writable >= 0);
    make_whole();
    load(argv[3]);
    for (size_t i = 0; i < sizeof SCENES / sizeof *SCENES; i++)
        if (strcmp(argv[1], SCENES[i].name) == 0) {
            SCENES[i].run();
            return 0;
        }
    fprintf(stderr, "no scene %s\n", argv[1]);
    return 2;
}
