//! What `loom` is asked of a window: a longer map, a map that retires, and a file that is cut and grows.
//!
//! The file is a model of the kernel's: bytes, and pages that are gone. It changes in the order in which the kernel
//! changes it (`DESIGN.md`, "Zeros behind a cut"), and orders what the kernel orders: pages are out of every map before
//! the rest of the last one is zeroed.
//!
//! # Safety
//!
//! Addresses are those of [`Memory`], which the file keeps until all threads are done.
#![allow(unsafe_code)]

use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize};
use loom::thread;

use super::{Copied, Copy, Mapped, PROBE_LOST, PROBE_TRAPPED, Window};
use crate::sys::sync::{explore::explore, fence};

/// As long as `Window` takes the largest folio to be.
const PAGE: usize = 8;
const PAGES: usize = 2;
const LEN: usize = PAGE + 1;

/// A file, and as many maps of it as there can be.
struct File {
    len: AtomicUsize,
    bytes: [AtomicU8; LEN],
    gone: [AtomicBool; PAGES],
    maps: [Memory; 2],
}

/// An address range: the offset of an address in it is the file's.
#[repr(align(64))]
struct Memory {
    file: std::cell::Cell<*const File>,
    /// Written when the range is unmapped, read by every copy.
    unmapped: UnsafeCell<bool>,
}

// SAFETY: a model's threads are one of the system's; what they share is `loom`'s.
unsafe impl Sync for File {}
// SAFETY: as above.
unsafe impl Send for File {}

impl File {
    fn new(bytes: [u8; LEN], len: usize) -> Arc<Self> {
        let memory = || Memory { file: std::cell::Cell::new(std::ptr::null()), unmapped: UnsafeCell::new(false) };
        let file = Arc::new(File {
            len: AtomicUsize::new(len),
            bytes: bytes.map(AtomicU8::new),
            gone: std::array::from_fn(|page| AtomicBool::new(page * PAGE >= len)),
            maps: [memory(), memory()],
        });
        file.maps.iter().for_each(|map| map.file.set(&raw const *file));
        file
    }

    /// What `fstat` says.
    fn len(&self) -> u64 {
        self.len.load(Acquire) as u64
    }

    /// Makes the file so much shorter.
    fn cut(&self, len: usize) {
        self.len.store(len, Release);
        for page in (0..PAGES).filter(|page| page * PAGE >= len) {
            self.gone[page].store(true, Relaxed);
        }
        // It waits until every processor has forgotten the pages.
        fence(Release);
        let rest = &self.bytes[len..len.next_multiple_of(PAGE)];
        rest.iter().for_each(|byte| byte.store(0, Relaxed));
    }

    /// Writes from here to the end and makes the file as long. A new page can be touched when the length says so.
    fn grow(&self, from: usize, value: u8) {
        self.bytes[from..].iter().for_each(|byte| byte.store(value, Relaxed));
        self.len.store(LEN, Release);
        self.gone.iter().for_each(|gone| gone.store(false, Release));
    }
}

struct Map {
    file: Arc<File>,
    number: usize,
    len_bytes: usize,
}

fn map(file: &Arc<File>, number: usize, len_bytes: usize) -> Map {
    Map { file: Arc::clone(file), number, len_bytes }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the pointer is the cell's own; `loom` finds copies that are not over.
        self.file.maps[self.number].unmapped.with_mut(|unmapped| unsafe { *unmapped = true });
    }
}

// SAFETY: `copy` finds its file by the address, which is kept until all threads are done.
unsafe impl Mapped for Map {
    fn base(&self) -> *mut u8 {
        (&raw const self.file.maps[self.number]).cast_mut().cast()
    }

    fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn retire(&self) -> io::Result<()> {
        Ok(())
    }

    unsafe fn copy(source: *const u8, destination: *mut u8, count: usize, probe: *const u8) -> Copy {
        let offset = source.addr() % align_of::<Memory>();
        let memory = source.wrapping_sub(offset).cast::<Memory>();
        // SAFETY: sources are addresses of a `Memory`, and no `File` moves or goes before the threads are done.
        let memory = unsafe { &*memory };
        // SAFETY: the pointer is the cell's own.
        assert!(!memory.unmapped.with(|unmapped| unsafe { *unmapped }), "a copy from where nothing is mapped");
        // SAFETY: set in `File::new`.
        let file = unsafe { &*memory.file.get() };
        // With acquire, as in the routine.
        let at = probe.addr() % align_of::<Memory>();
        if file.gone[at / PAGE].load(Acquire) {
            return Copy { left_bytes: count, probed: PROBE_TRAPPED };
        }
        let probed = usize::from(file.bytes[at].load(Acquire));
        for index in 0..count {
            if file.gone[(offset + index) / PAGE].load(Relaxed) {
                return Copy { left_bytes: count - index, probed };
            }
            let byte = file.bytes[offset + index].load(Relaxed);
            // SAFETY: valid for writes by the contract.
            unsafe { destination.wrapping_add(index).write(byte) };
        }
        // The routine's barrier, or the order in which the processor loads.
        fence(Acquire);
        let is_lost = file.gone[at / PAGE].load(Relaxed);
        Copy { left_bytes: if is_lost { PROBE_LOST } else { 0 }, probed }
    }
}

fn window(map: Map, readable_bytes: u64) -> Arc<Window<Map>> {
    let window = Window::new();
    window.replace(map).expect("it is the first");
    window.publish(readable_bytes);
    Arc::new(window)
}

/// The file outgrows its map while something is read.
fn growth_past_the_map(read: fn(&Window<Map>, &File, &mut [u8]) -> Copied) {
    explore(3, move || {
        let file = File::new([0; LEN], 1);
        let window = window(map(&file, 0, 1), 1);
        let (grown, writer) = (Arc::clone(&file), Arc::clone(&window));
        let writer = thread::spawn(move || {
            grown.grow(1, 7);
            writer.replace(map(&grown, 1, LEN)).expect("it is longer");
            writer.publish(LEN as u64);
        });
        let mut buf = [9; 2];
        match read(&window, &file, &mut buf) {
            Copied::NotReadable => {}
            copied => assert!(copied == Copied::Whole && buf == [7; 2], "{copied:?}, {buf:?}"),
        }
        writer.join().expect("it ran");
    });
}

/// A reader that sees the length sees the bytes, and a map that has them.
#[test]
fn growth_past_the_map_against_reads() {
    growth_past_the_map(|window, _, buf| window.copy_out(1, buf));
}

/// The same for a reader that has asked the system for the length.
#[test]
fn growth_past_the_map_against_a_read_of_who_asked() {
    growth_past_the_map(|window, file, buf| window.copy_out_within(file.len(), 1, buf));
}

/// Two who grow the file at once: what is published is never beyond what is mapped.
#[test]
fn two_that_publish_against_a_read() {
    explore(2, || {
        let file = File::new([7; LEN], LEN);
        let window = window(map(&file, 0, 2), 2);
        let (mapping, publishing) = (Arc::clone(&window), Arc::clone(&window));
        let larger = map(&file, 1, LEN);
        let mapping = thread::spawn(move || mapping.replace(larger).expect("it is longer"));
        let publishing = thread::spawn(move || publishing.publish(LEN as u64));
        let mut buf = [9; 2];
        match window.copy_out(4, &mut buf) {
            Copied::NotReadable => {}
            copied => assert!(copied == Copied::Whole && buf == [7; 2], "{copied:?}, {buf:?}"),
        }
        mapping.join().expect("it ran");
        publishing.join().expect("it ran");
    });
}

/// A map that is replaced, and a window that is dropped by whoever has it last: nobody copies from what is unmapped.
#[test]
fn a_map_that_retires_against_reads() {
    explore(3, || {
        let file = File::new([7; LEN], LEN);
        let window = window(map(&file, 0, LEN), LEN as u64);
        let (mapping, larger) = (Arc::clone(&window), map(&file, 1, LEN));
        let mapping = thread::spawn(move || mapping.replace(larger).expect("it is as long"));
        let reading = Arc::clone(&window);
        let reading = thread::spawn(move || _ = reading.copy_out(0, &mut [0; 2]));
        _ = window.copy_out(2, &mut [0; 2]);
        drop(window);
        mapping.join().expect("it ran");
        reading.join().expect("it ran");
    });
}

/// A read as `MmapFile` does it, as far as the map serves it.
fn read(window: &Window<Map>, file: &File, offset: u64, buf: &mut [u8]) -> bool {
    match window.copy_out(offset, buf) {
        Copied::Whole | Copied::Probed => true,
        Copied::TailUnproven => {
            matches!(window.copy_out_between(|| file.len(), offset, buf), Copied::Whole | Copied::Probed)
        }
        _ => false,
    }
}

/// A block of this file.
fn block<const N: usize>(last: u8) -> [u8; N] {
    let mut block = [2; N];
    block[N - 1] = last;
    block
}

/// The file is cut within a block that is read: zeros behind its end are no data. A block that ends in a zero of its
/// own is.
fn cut_against_a_read<const N: usize>(last: u8, readable: usize) {
    explore(3, move || {
        let mut bytes = [9; LEN];
        bytes[..N].copy_from_slice(&block::<N>(last));
        let file = File::new(bytes, readable);
        let window = window(map(&file, 0, LEN), readable as u64);
        let (cut, cutter) = (Arc::clone(&file), Arc::clone(&window));
        let cutter = thread::spawn(move || {
            cutter.publish(1);
            cut.cut(1);
        });
        let mut buf = [5; N];
        if read(&window, &file, 0, &mut buf) {
            assert_eq!(buf, block(last), "bytes behind the end");
        }
        cutter.join().expect("it ran");
        assert!(!read(&window, &file, 0, &mut buf));
    });
}

#[test]
fn a_cut_far_from_the_end_against_a_read() {
    cut_against_a_read::<3>(3, LEN);
}

#[test]
fn a_cut_far_from_the_end_against_a_read_of_a_zero() {
    cut_against_a_read::<3>(0, LEN);
}

// Near the end the block's last byte stands for all that change with it: what the kernel stores into one page is taken
// for one step.

#[test]
fn a_cut_near_the_end_against_a_read() {
    cut_against_a_read::<2>(3, 2);
}

#[test]
fn a_cut_near_the_end_against_a_read_of_a_zero() {
    cut_against_a_read::<3>(0, 3);
}

/// The file was cut before, and readers do not know it. It grows back while they read: the zeros that were behind the
/// end meanwhile are no data.
fn growth_back_against_a_read<const N: usize>(readable: usize) {
    explore(3, move || {
        let mut bytes = [0; LEN];
        bytes[0] = 2;
        let file = File::new(bytes, 1);
        let window = window(map(&file, 0, LEN), readable as u64);
        let grown = Arc::clone(&file);
        let grower = thread::spawn(move || grown.grow(1, 2));
        let mut buf = [5; N];
        if read(&window, &file, 0, &mut buf) {
            assert_eq!(buf, [2; N], "bytes behind the end that was");
        }
        grower.join().expect("it ran");
    });
}

#[test]
fn growth_back_far_from_the_end_against_a_read() {
    growth_back_against_a_read::<3>(LEN);
}

#[test]
fn growth_back_near_the_end_against_a_read() {
    growth_back_against_a_read::<2>(2);
}
