//! How the figures come about, told where the user sees it: in the help, below the table and in the report.

/// A point of the method: what it is about, and what is done.
pub(crate) struct Point {
    pub(crate) about: &'static str,
    pub(crate) text: &'static str,
}

/// All points, in the order they are told.
pub(crate) const POINTS: [Point; 12] = [
    Point {
        about: "A pass",
        text: "is as many reads as the file has whole blocks, or --pass-reads, each into the same page-aligned buffer \
               of one block per thread. Offsets are made before the clock starts, from the seed and the round, and \
               are the same for all contenders of a round. A checksum over the first 8 bytes of each block must agree \
               between them. With --batch each call does so many reads, into so many blocks.",
    },
    Point {
        about: "Patterns",
        text: "seq reads each block once in order. rand picks blocks with replacement. zipf picks the n-th most \
               popular block with a chance in proportion to 1 / n^theta (0.99); popular blocks are spread over the \
               file and are the same in all rounds. scan+rand goes through the file in order with every other read \
               and picks blocks at random with the rest. shift picks blocks of a part of the file (10 %), which is at \
               its beginning in the first half of the pass and in its middle in the second.",
    },
    Point {
        about: "The clock",
        text: "runs from the first thread's start behind a barrier to the last one's end. Opening, mapping and \
               closing are outside; the page faults of a map are inside, and each pass maps afresh. With --reuse-map \
               a map that was touched before is shown too.",
    },
    Point {
        about: "Contenders",
        text: "are the modes of mapfall: pread, mmap and so on. -random and -seq are the map, and the system call in \
               a plain loop, with that advice to the kernel (madvise, posix_fadvise). What they are judged by: bare, \
               a memcpy from an unprotected map with the same advice; bare-pread, the system call in a plain loop; \
               limit, the same copies from anonymous 2 MiB pages. They are interleaved round by round, in an order \
               that is rotated. A ratio is made pair by pair within the rounds.",
    },
    Point {
        about: "Warm",
        text: "means that every byte is in the page cache, verified before each pass (cachestat, else mincore). \
               Unless --huge is off the file is dropped once and then read through a map that asks for 2 MiB pages, \
               so that it lies in the page cache in 2 MiB pieces for every contender.",
    },
    Point {
        about: "Cold",
        text: "means that no byte is, verified before each pass after fsync and POSIX_FADV_DONTNEED, and, as root, \
               after /proc/sys/vm/drop_caches where that was not enough. Where pages stay behind the cell is skipped. \
               The device, or a host below it, may have caches of its own that nobody here can empty.",
    },
    Point {
        about: "Limited",
        text: "to a share of the file is memory, page cache included: each pass is made by a child process in a \
               control group (cgroup v1 or v2) with a limit of that share of the file, and beside it 8 MiB, the \
               buffers and 16 bytes a read for the process itself. The file is dropped first. The child reads the \
               share of it in order, so that memory is full, then opens the contender and reads as the pass will \
               read, up to twice the share or --warm-up, and goes on with the pass through the same contender. Where \
               there is no right to make a control group the cell is skipped.",
    },
    Point {
        about: "Over time",
        text: "with --series a pass lasts that long and goes over its offsets again and again; in shift the part of \
               the file moves half way. Each tenth of a second has its throughput. --limit-change moves the limit of \
               limited cells meanwhile. A change is over when the mean of three tenths of a second is at 90 % of what \
               the throughput comes to: the median of the last quarter of the time up to the next change.",
    },
    Point {
        about: "Best and worst",
        text: "of a cell are what a mode that chooses by itself is held against: the fastest of pread and the map, \
               each with whatever advice took part, and the slower of the best pread and the best map.",
    },
    Point {
        about: "Copy and rest",
        text: "are split by a second pass in each round that does everything but the copy: pread of 1 byte instead of \
               a block, or 1 byte of each 4 KiB page of it from the map, at the same offsets and from an equally \
               fresh map. What the whole pass takes longer is the copy. Those bytes are brought into the processor's \
               cache off the clock, through another map, since to wait for memory is part of the copy. The calls that \
               touch a block's other pages count as rest.",
    },
    Point {
        about: "Partial",
        text: "figures, marked ~, come from passes that reached --pass-limit. Their rate is over the reads done by \
               then, so contenders in such a cell did not all do the same work.",
    },
    Point {
        about: "CPU time",
        text: "and faults are the sum over the threads of a pass, from /proc; the times come in ticks of 10 ms. \
               ns/read is how long one thread waited for one read.",
    },
];

/// The points as text for `--help`.
pub(crate) fn help() -> String {
    let mut help = "How it is measured:\n".to_owned();
    for Point { about, text } in POINTS {
        help += &format!("\n  {about}: {text}\n");
    }
    help
}
