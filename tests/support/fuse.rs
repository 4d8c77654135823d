//! A file system whose reads fail when they are told to.
//!
//! It is served by a child process: a fault in a map of its file then waits for another process, as with any device,
//! and however the test ends, the child sees its input end and unmounts.

use std::ffi::{CString, OsStr};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner, MountOption,
    OpenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, Request,
};
use tempfile::TempDir;

use super::children::{child, tell};
use super::common::scratch;

/// Long enough to have more regions than may be suspect at a time. No byte of it is stored.
pub(crate) const FILE_BYTES: u64 = 256 << 20;
const FILE: INodeNo = INodeNo(2);
const NAME: &str = "data";
/// Answers begin with it, so that they differ from what the test harness prints.
const ANSWER: &str = "answer:";

/// What the file holds.
pub(crate) fn content(offset: u64, len: usize) -> Vec<u8> {
    (offset..offset + len as u64).map(|place| (place ^ (place >> 9) ^ (place >> 20)) as u8).collect()
}

/// A mounted file system.
pub(crate) struct Device {
    dir: TempDir,
    server: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Device {
    /// Mounts it, served by the ignored test `role`; or why that cannot be.
    pub(crate) fn mount(role: &str, direct: bool) -> Result<Device, String> {
        if !Path::new("/dev/fuse").exists() {
            return Err("there is no /dev/fuse".to_owned());
        }
        let dir = scratch();
        let words = format!("{}|{direct}", dir.path().display());
        let mut server = child(role, &words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (orders, answers) = (server.stdin.take(), BufReader::new(server.stdout.take().unwrap()));
        let mut device = Device { dir, server, orders, answers };
        match device.answer().as_str() {
            "mounted" => Ok(device),
            why => Err(why.to_owned()),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(NAME)
    }

    /// From now on reads of these bytes fail, and the page cache has forgotten the file.
    pub(crate) fn fails(&mut self, bytes: Range<u64>) {
        self.order(&format!("fail {} {}", bytes.start, bytes.end));
    }

    /// From now on all reads work.
    pub(crate) fn recovers(&mut self) {
        self.order("fail 0 0");
    }

    /// The device is gone: nothing answers any more. It is unmounted first, files that are open stay open.
    pub(crate) fn dies(&mut self) {
        drop(self.orders.take());
        let _ = self.server.wait();
    }

    fn order(&mut self, order: &str) {
        writeln!(self.orders.as_mut().unwrap(), "{order}").unwrap();
        assert_eq!(self.answer(), "done");
    }

    fn answer(&mut self) -> String {
        for line in self.answers.by_ref().lines() {
            // The harness may have printed before it on the same line.
            if let Some((_, answer)) = line.unwrap().split_once(ANSWER) {
                return answer.to_owned();
            }
        }
        "the server came to its end".to_owned()
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.dies();
    }
}

struct Detach<'a>(&'a Path);

impl Drop for Detach<'_> {
    /// Unmounts, open files or not. A server that is not root leaves it to the session, which asks `fusermount3`.
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        let dir = CString::new(self.0.to_str().unwrap()).unwrap();
        // SAFETY: the string is live and ends in NUL.
        unsafe { libc::umount2(dir.as_ptr(), libc::MNT_DETACH) };
    }
}

fn answer(answer: &str) {
    tell(&format!("{ANSWER}{answer}"));
}

/// What the child does until its input ends.
pub(crate) fn serve(words: &str) {
    let (dir, direct) = words.split_once('|').unwrap();
    let failing = Arc::new(Mutex::new(0..0));
    let mut config = Config::default();
    config.mount_options = vec![MountOption::RO, MountOption::FSName("mapfall-test".to_owned())];
    let device = Served { failing: failing.clone(), direct: direct == "true" };
    let session = match fuser::spawn_mount(device, dir, &config) {
        Ok(session) => session,
        Err(error) => return answer(&format!("it cannot be mounted: {error}")),
    };
    // Also if this panics: who gave the orders may be gone.
    let _detach = Detach(Path::new(dir));
    answer("mounted");
    let notifier = session.notifier();
    for order in io::stdin().lines() {
        let order = order.unwrap();
        let [start, end] = order.split(' ').skip(1).map(|word| word.parse().unwrap()).collect::<Vec<u64>>()[..] else {
            panic!("{order}")
        };
        *failing.lock().unwrap() = start..end;
        // Fails where the kernel does not know the file yet.
        let _ = notifier.inval_inode(FILE, 0, 0);
        answer("done");
    }
}

struct Served {
    failing: Arc<Mutex<Range<u64>>>,
    direct: bool,
}

const TTL: Duration = Duration::from_secs(600);

fn attr(ino: INodeNo) -> FileAttr {
    let is_file = ino == FILE;
    FileAttr {
        ino,
        size: if is_file { FILE_BYTES } else { 0 },
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_file { FileType::RegularFile } else { FileType::Directory },
        perm: if is_file { 0o444 } else { 0o755 },
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        flags: 0,
        blksize: 4096,
    }
}

impl Filesystem for Served {
    fn lookup(&self, _request: &Request, _parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if name == NAME { reply.entry(&TTL, &attr(FILE), Generation(0)) } else { reply.error(Errno::ENOENT) }
    }

    fn getattr(&self, _request: &Request, ino: INodeNo, _handle: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&TTL, &attr(ino));
    }

    fn open(&self, _request: &Request, _ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        let flags = if self.direct { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _request: &Request,
        _ino: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = (offset + u64::from(size)).min(FILE_BYTES);
        let failing = self.failing.lock().unwrap().clone();
        if offset < failing.end && failing.start < end {
            return reply.error(Errno::EIO);
        }
        reply.data(&content(offset, end.saturating_sub(offset) as usize));
    }
}
