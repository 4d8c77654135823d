/* The I/O layer for the host programs of this directory. */
#ifndef MAPFALL_HOST_H
#define MAPFALL_HOST_H

#include <stddef.h>
#include <stdint.h>

enum { MAPFALL_OK = 0, MAPFALL_PAST_END = 1, MAPFALL_FAILED = 2 };
enum { MAPFALL_PREAD = 0, MAPFALL_MMAP = 1, MAPFALL_AUTO = 2 };

struct mapfall_file;

struct mapfall_stats {
    uint64_t reads, mmap_reads, pread_reads, faults_recovered, handler_replaced, signal_blocked, paths_add_up;
};

/* NULL where the file cannot be opened. */
struct mapfall_file *mapfall_host_open(const char *path, int mode);
/* Any thread, with len bytes of initialised memory. */
int mapfall_host_read_at(const struct mapfall_file *file, uint64_t offset, uint8_t *buf, size_t len);
/* -1 where the system does not say. */
int64_t mapfall_host_len(const struct mapfall_file *file);
void mapfall_host_stats(const struct mapfall_file *file, struct mapfall_stats *stats);
void mapfall_host_close(struct mapfall_file *file);

#endif
