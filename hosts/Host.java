import java.lang.foreign.Arena;
import java.lang.foreign.FunctionDescriptor;
import java.lang.foreign.Linker;
import java.lang.foreign.MemorySegment;
import java.lang.foreign.SymbolLookup;
import java.lang.foreign.ValueLayout;
import java.lang.invoke.MethodHandle;
import java.nio.ByteBuffer;
import java.nio.MappedByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A virtual machine that has handlers of its own for both signals: java --enable-native-access=ALL-UNNAMED Host.java
 * DIRECTORY LIBRARY
 *
 * While threads read a file that is cut, it takes faults of its own: null pointers, stack overflows, collections (its
 * threads stop by faults), and a mapped buffer whose file was cut.
 */
public class Host {
    static final int OK = 0, PAST_END = 1, PAGE = 4096, PAGES = 16;
    static final byte[] WHOLE = new byte[PAGES * PAGE];

    static MethodHandle readAt, stats;
    static MemorySegment file;
    static volatile Object nothing;
    static volatile int sink;

    static void check(boolean is, String what) {
        if (!is) {
            throw new AssertionError(what);
        }
    }

    static int read(MemorySegment buf, int page) throws Throwable {
        int status = (int) readAt.invokeExact(file, (long) page * PAGE, buf, (long) PAGE);
        check(status == OK || status == PAST_END, "status " + status);
        for (int i = 0; status == OK && i < PAGE; i++) {
            byte found = buf.get(ValueLayout.JAVA_BYTE, i);
            // What the other thread is cutting may be zero already, by pread(2) too.
            check(found == WHOLE[page * PAGE + i] || found == 0, "page " + page + " is wrong");
        }
        return status;
    }

    static long[] stats() throws Throwable {
        try (var arena = Arena.ofConfined()) {
            var found = arena.allocate(ValueLayout.JAVA_LONG, 7);
            stats.invokeExact(file, found);
            return found.toArray(ValueLayout.JAVA_LONG);
        }
    }

    static int nullPointer() {
        try {
            return nothing.hashCode();
        } catch (NullPointerException expected) {
            return 1;
        }
    }

    static int deep(int depth) {
        return deep(depth + 1) + 1;
    }

    static int overflow() {
        try {
            return deep(0);
        } catch (StackOverflowError expected) {
            return 1;
        }
    }

    /** A buffer whose file is gone: an error of the machine's, not its end. */
    static int ownFault(Path directory) throws Exception {
        try (var channel = FileChannel.open(directory.resolve("java-own"), StandardOpenOption.CREATE,
                StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            channel.truncate(0);
            channel.write(ByteBuffer.wrap(WHOLE, 0, PAGE));
            MappedByteBuffer own = channel.map(FileChannel.MapMode.READ_ONLY, 0, PAGE);
            channel.truncate(0);
            try {
                sink = own.get(17);
                // The machine may tell of it a little later.
                for (int i = 0; i < 1000; i++) {
                    sink += i;
                }
                Thread.sleep(1);
            } catch (InternalError expected) {
                return 1;
            }
            return 0;
        }
    }

    public static void main(String[] arguments) throws Throwable {
        var directory = Path.of(arguments[0]);
        var path = directory.resolve("java");
        for (int i = 0; i < WHOLE.length; i++) {
            WHOLE[i] = (byte) (i / 512 + i | 1);
        }
        var channel = FileChannel.open(path, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
        channel.write(ByteBuffer.wrap(WHOLE), 0);

        var library = SymbolLookup.libraryLookup(Path.of(arguments[1]), Arena.global());
        var linker = Linker.nativeLinker();
        var open = linker.downcallHandle(library.find("mapfall_host_open").orElseThrow(),
            FunctionDescriptor.of(ValueLayout.ADDRESS, ValueLayout.ADDRESS, ValueLayout.JAVA_INT));
        readAt = linker.downcallHandle(library.find("mapfall_host_read_at").orElseThrow(), FunctionDescriptor.of(
            ValueLayout.JAVA_INT, ValueLayout.ADDRESS, ValueLayout.JAVA_LONG, ValueLayout.ADDRESS,
            ValueLayout.JAVA_LONG));
        stats = linker.downcallHandle(library.find("mapfall_host_stats").orElseThrow(),
            FunctionDescriptor.ofVoid(ValueLayout.ADDRESS, ValueLayout.ADDRESS));
        file = (MemorySegment) open.invokeExact(Arena.global().allocateFrom(path.toString()), 1);
        check(file.address() != 0, "open");

        var stopped = new AtomicBoolean();
        var cut = new AtomicLong();
        List<Throwable> failures = new ArrayList<>();
        List<Thread> readers = new ArrayList<>();
        for (int which = 0; which < 3; which++) {
            int first = which;
            readers.add(Thread.ofPlatform().start(() -> {
                try (var arena = Arena.ofConfined()) {
                    var buf = arena.allocate(PAGE);
                    for (int page = first; !stopped.get(); page = (page + 7) % PAGES) {
                        if (read(buf, page) == PAST_END) {
                            cut.incrementAndGet();
                        }
                    }
                } catch (Throwable failure) {
                    synchronized (failures) {
                        failures.add(failure);
                    }
                }
            }));
        }
        long nulls = 0, overflows = 0, own = 0, owned = 0;
        long end = System.nanoTime() + 5_000_000_000L;
        while (System.nanoTime() < end) {
            channel.truncate(PAGE);
            for (int i = 0; i < 200; i++) {
                nulls += nullPointer();
            }
            channel.write(ByteBuffer.wrap(WHOLE), 0);
            if (++owned % 50 == 0) {
                overflows += overflow();
                own += ownFault(directory);
                System.gc();
            }
        }
        stopped.set(true);
        for (var reader : readers) {
            reader.join();
        }
        for (var failure : failures) {
            failure.printStackTrace();
        }
        check(failures.isEmpty(), "a reader failed");
        long[] found = stats();
        System.out.printf("%d reads, %d more past the end, %d faults recovered; the machine's own: %d null pointers, %d "
            + "stack overflows, %d of %d buffers%n", found[0], cut.get(), found[3], nulls, overflows, own, owned / 50);
        check(found[3] > 0 && cut.get() > 0 && found[1] > 0 && found[6] == 1, "nothing was tried");
        check(nulls > 0 && overflows > 0 && own == owned / 50, "the machine did not get its own faults");
        channel.close();
    }
}
