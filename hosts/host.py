"""Python with its fault handler: host.py SCENE DIRECTORY LIBRARY"""

import ctypes
import faulthandler
import mmap
import os
import sys
import threading
import time

OK, PAST_END = 0, 1
MMAP = 1
PAGE = mmap.PAGESIZE
WHOLE = bytes((i // 512 + i) % 256 | 1 for i in range(16 * PAGE))


class Stats(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "reads", "mmap_reads", "pread_reads", "faults_recovered", "handler_replaced", "signal_blocked",
            "paths_add_up",
        )
    ]


class File:
    """A file of the library's, and the descriptor that cuts it."""

    def __init__(self, path, library):
        self.library = ctypes.CDLL(library)
        self.library.mapfall_host_open.restype = ctypes.c_void_p
        self.library.mapfall_host_open.argtypes = [ctypes.c_char_p, ctypes.c_int]
        self.library.mapfall_host_read_at.argtypes = [
            ctypes.c_void_p, ctypes.c_uint64, ctypes.c_char_p, ctypes.c_size_t,
        ]
        self.library.mapfall_host_stats.argtypes = [ctypes.c_void_p, ctypes.POINTER(Stats)]
        self.library.mapfall_host_stats.restype = None
        self.writable = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        self.restore()
        self.file = self.library.mapfall_host_open(os.fsencode(path), MMAP)
        assert self.file, "open"

    def restore(self):
        assert os.pwrite(self.writable, WHOLE, 0) == len(WHOLE)

    def cut(self):
        os.ftruncate(self.writable, PAGE)

    def stats(self):
        stats = Stats()
        self.library.mapfall_host_stats(self.file, ctypes.byref(stats))
        return stats

    def read(self, number, being_cut=False):
        """A call without the interpreter's lock, so threads read at once.

        What another thread is cutting may be zero already, by pread(2) too.
        """
        buf = ctypes.create_string_buffer(PAGE)
        status = self.library.mapfall_host_read_at(self.file, number * PAGE, buf, PAGE)
        assert status in (OK, PAST_END), status
        whole = WHOLE[number * PAGE : (number + 1) * PAGE]
        if status == OK and buf.raw != whole:
            is_right = being_cut and all(found in (right, 0) for found, right in zip(buf.raw, whole))
            assert is_right, f"page {number} is wrong"
        return status

    def recovers(self):
        before = self.stats().faults_recovered
        self.cut()
        assert self.read(3) == PAST_END
        assert self.stats().faults_recovered == before + 1
        self.restore()
        assert self.read(3) == OK


def own_fault(directory):
    """Touches a map of Python's own whose page is gone."""
    with open(os.path.join(directory, "py-own"), "w+b") as file:
        file.truncate(PAGE)
        own = mmap.mmap(file.fileno(), PAGE)
        file.truncate(0)
        return own[0]


def threads(file, directory):
    """Python's handler was there before: cuts while threads read."""
    cut, stopped = [0] * 3, threading.Event()

    def read(which):
        number = which
        while not stopped.is_set():
            number = (number + 7) % 16
            cut[which] += file.read(number, being_cut=True) == PAST_END

    readers = [threading.Thread(target=read, args=(which,)) for which in range(3)]
    for reader in readers:
        reader.start()
    end = time.monotonic() + 3
    while time.monotonic() < end:
        file.cut()
        time.sleep(0.0005)
        file.restore()
        time.sleep(0.0005)
    stopped.set()
    for reader in readers:
        reader.join()
    stats = file.stats()
    print(f"{stats.reads} reads, {sum(cut)} more past the end, {stats.faults_recovered} faults recovered")
    assert sum(cut) > 0 and stats.faults_recovered > 0 and stats.paths_add_up and stats.mmap_reads > 0


def late(file, directory):
    """Python's handler comes later, and passes nothing on: the map stands aside."""
    file.recovers()
    faulthandler.disable()
    faulthandler.enable()
    for number in range(20000):
        assert file.read(number % 16) == OK
    assert file.stats().handler_replaced > 5000
    file.cut()
    assert file.read(3) == PAST_END


def fatal(file, directory):
    """A fault of Python's own is told by Python's handler, and is fatal."""
    file.recovers()
    own_fault(directory)
    raise AssertionError("the byte is not there")


def main():
    scene, directory, library = sys.argv[1:]
    faulthandler.enable()
    file = File(os.path.join(directory, f"py-{scene}"), library)
    {"threads": threads, "late": late, "fatal": fatal}[scene](file, directory)


main()
