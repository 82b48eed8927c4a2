//! A file system in memory, mounted through FUSE, that knows what a power cut would leave: for each file the pages of
//! the last fsync, for each directory the names of its last fsync.
//!
//! One exception: in directories named `blobs` an fsync of a new file makes its name durable, too. fjall 3.1 does not sync
//! that directory before a version names the file; it relies on what ext4, xfs and btrfs do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem,
    FopenFlags, Generation, INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::rng::Rng;

const PAGE: usize = 4096;
const TTL: Duration = Duration::from_secs(1);

/// How much of what was not synced a power cut leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    Nothing,
    /// Any pages and any directories, as the kernel may have written them on its own.
    Some(u64),
}

/// The mounted file system. Unmounted when dropped.
pub(crate) struct Forgetful {
    disk: Arc<Mutex<Disk>>,
    _session: BackgroundSession,
}

#[derive(Clone)]
pub(crate) struct Cut(Arc<Mutex<Disk>>);

impl Forgetful {
    /// Mounts at `at`, an empty directory.
    pub(crate) fn mount(at: &Path) -> Self {
        assert!(
            Path::new("/dev/fuse").exists(),
            "/dev/fuse is missing: the power cut tests need it, they never skip"
        );
        let mut disk = Disk::default();
        disk.nodes.insert(1, Node::Dir(Dir::default()));
        let disk = Arc::new(Mutex::new(disk));
        let session = fuser::spawn_mount(Mounted(Arc::clone(&disk)), at, &Config::default())
            .expect("mounting through FUSE");
        Self {
            disk,
            _session: session,
        }
    }

    pub(crate) fn cut(&self) -> Cut {
        Cut(Arc::clone(&self.disk))
    }
}

impl Cut {
    /// Puts what a power cut at this moment leaves into the directory `to`.
    pub(crate) fn leave(&self, to: &Path, leaves: Leaves) {
        let disk = self.0.lock().unwrap();
        let mut rng = match leaves {
            Leaves::Nothing => None,
            Leaves::Some(seed) => Some(Rng::new(seed)),
        };
        disk.leave_dir(1, to, &mut rng);
    }
}

#[derive(Default)]
struct Disk {
    nodes: BTreeMap<u64, Node>,
    last: u64,
}

enum Node {
    Dir(Dir),
    File(FileNode),
}

#[derive(Default)]
struct Dir {
    fsync_names: bool,
    names: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

type Pages = BTreeMap<u64, Arc<[u8; PAGE]>>;

#[derive(Default)]
struct FileNode {
    size: u64,
    pages: Pages,
    unsynced: BTreeSet<u64>,
    durable_size: u64,
    durable: Pages,
}

impl FileNode {
    fn write(&mut self, offset: u64, data: &[u8]) {
        let mut at = offset;
        let mut rest = data;
        while !rest.is_empty() {
            let (page, inside) = (at / PAGE as u64, at as usize % PAGE);
            let take = rest.len().min(PAGE - inside);
            let bytes = Arc::make_mut(
                self.pages
                    .entry(page)
                    .or_insert_with(|| Arc::new([0; PAGE])),
            );
            bytes[inside..inside + take].copy_from_slice(&rest[..take]);
            self.unsynced.insert(page);
            rest = &rest[take..];
            at += take as u64;
        }
        self.size = self.size.max(at);
    }

    fn truncate(&mut self, size: u64) {
        if size < self.size {
            let first_gone = size.div_ceil(PAGE as u64);
            self.unsynced
                .extend(self.pages.split_off(&first_gone).into_keys());
            let inside = size as usize % PAGE;
            if let Some(bytes) = self
                .pages
                .get_mut(&(size / PAGE as u64))
                .filter(|_| inside > 0)
            {
                Arc::make_mut(bytes)[inside..].fill(0);
                self.unsynced.insert(size / PAGE as u64);
            }
        }
        self.size = size;
    }

    fn sync(&mut self) {
        for page in std::mem::take(&mut self.unsynced) {
            match self.pages.get(&page) {
                Some(bytes) => self.durable.insert(page, Arc::clone(bytes)),
                None => self.durable.remove(&page),
            };
        }
        self.durable_size = self.size;
    }

    fn read(&self, offset: u64, size: usize) -> Vec<u8> {
        let end = (offset + size as u64).min(self.size);
        let mut out = Vec::with_capacity(end.saturating_sub(offset) as usize);
        let mut at = offset;
        while at < end {
            let inside = at as usize % PAGE;
            let take = ((end - at) as usize).min(PAGE - inside);
            match self.pages.get(&(at / PAGE as u64)) {
                Some(bytes) => out.extend_from_slice(&bytes[inside..inside + take]),
                None => out.resize(out.len() + take, 0),
            }
            at += take as u64;
        }
        out
    }
}

impl Disk {
    fn leave_dir(&self, node: u64, to: &Path, rng: &mut Option<Rng>) {
        let Some(Node::Dir(dir)) = self.nodes.get(&node) else {
            return;
        };
        fs::create_dir_all(to).unwrap();
        let now = rng.as_mut().is_some_and(|rng| rng.chance(2));
        for (name, child) in if now { &dir.names } else { &dir.durable } {
            let to = to.join(name);
            match &self.nodes[child] {
                Node::Dir(_) => self.leave_dir(*child, &to, rng),
                Node::File(file) => Self::leave_file(file, &to, rng),
            }
        }
    }

    fn leave_file(file: &FileNode, to: &Path, rng: &mut Option<Rng>) {
        use std::os::unix::fs::FileExt;
        let (mut pages, mut size) = (file.durable.clone(), file.durable_size);
        if let Some(rng) = rng {
            if rng.chance(2) {
                size = file.size;
            }
            for page in &file.unsynced {
                if rng.chance(2)
                    && let Some(bytes) = file.pages.get(page)
                {
                    pages.insert(*page, Arc::clone(bytes));
                }
            }
        }
        let out = fs::File::create(to).unwrap();
        for (page, bytes) in pages {
            let start = page * PAGE as u64;
            let len = size.saturating_sub(start).min(PAGE as u64) as usize;
            out.write_all_at(&bytes[..len], start).unwrap();
        }
        out.set_len(size).unwrap();
    }

    fn dir(&mut self, node: INodeNo) -> Option<&mut Dir> {
        match self.nodes.get_mut(&node.0)? {
            Node::Dir(dir) => Some(dir),
            Node::File(_) => None,
        }
    }

    fn file(&mut self, node: INodeNo) -> Option<&mut FileNode> {
        match self.nodes.get_mut(&node.0)? {
            Node::File(file) => Some(file),
            Node::Dir(_) => None,
        }
    }

    fn add(&mut self, parent: INodeNo, name: &OsStr, node: Node) -> Option<FileAttr> {
        self.last = self.last.max(1) + 1;
        let number = self.last;
        let dir = self.dir(parent)?;
        dir.names.insert(name.to_os_string(), number);
        self.nodes.insert(number, node);
        self.attr(number)
    }

    fn attr(&self, number: u64) -> Option<FileAttr> {
        let (kind, size, perm) = match self.nodes.get(&number)? {
            Node::Dir(_) => (FileType::Directory, 0, 0o755),
            Node::File(file) => (FileType::RegularFile, file.size, 0o644),
        };
        let now: SystemTime = UNIX_EPOCH;
        Some(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm,
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: PAGE as u32,
            flags: 0,
        })
    }
}

struct Mounted(Arc<Mutex<Disk>>);

/// Replies with what there is, else with "no such file".
macro_rules! answer {
    ($found:expr, $reply:ident, $value:pat => $then:expr) => {
        match $found {
            Some($value) => $then,
            None => $reply.error(Errno::ENOENT),
        }
    };
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let mut disk = self.0.lock().unwrap();
        let number = disk
            .dir(parent)
            .and_then(|dir| dir.names.get(name).copied());
        answer!(number.and_then(|number| disk.attr(number)), reply, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn getattr(&self, _: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        answer!(self.0.lock().unwrap().attr(node.0), reply, attr => reply.attr(&TTL, &attr));
    }

    fn setattr(
        &self,
        _: &Request,
        node: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.0.lock().unwrap();
        if let (Some(size), Some(file)) = (size, disk.file(node)) {
            file.truncate(size);
        }
        answer!(disk.attr(node.0), reply, attr => reply.attr(&TTL, &attr));
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let added = self.0.lock().unwrap().add(
            parent,
            name,
            Node::Dir(Dir {
                fsync_names: name == "blobs",
                ..Dir::default()
            }),
        );
        answer!(added, reply, attr => reply.entry(&TTL, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut disk = self.0.lock().unwrap();
        answer!(disk.dir(parent).and_then(|dir| dir.names.remove(name)), reply, _ => reply.ok());
    }

    fn rmdir(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.unlink(request, parent, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.0.lock().unwrap();
        let Some(number) = disk.dir(parent).and_then(|dir| dir.names.remove(name)) else {
            return reply.error(Errno::ENOENT);
        };
        answer!(disk.dir(new_parent), reply, dir => {
            dir.names.insert(new_name.to_os_string(), number);
            reply.ok();
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let added = self
            .0
            .lock()
            .unwrap()
            .add(parent, name, Node::File(FileNode::default()));
        answer!(added, reply, attr => reply.created(&TTL, &attr, Generation(0), FileHandle(0), FopenFlags::empty()));
    }

    fn read(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut disk = self.0.lock().unwrap();
        answer!(disk.file(node), reply, file => reply.data(&file.read(offset, size as usize)));
    }

    fn write(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = self.0.lock().unwrap();
        answer!(disk.file(node), reply, file => {
            file.write(offset, data);
            reply.written(data.len() as u32);
        });
    }

    fn fsync(&self, _: &Request, node: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut disk = self.0.lock().unwrap();
        let synced = disk.file(node).map(FileNode::sync);
        for dir in disk.nodes.values_mut() {
            if let Node::Dir(dir) = dir
                && dir.fsync_names
                && let Some((name, number)) =
                    dir.names.iter().find(|(_, number)| **number == node.0)
            {
                dir.durable.insert(name.clone(), *number);
            }
        }
        answer!(synced, reply, () => reply.ok());
    }

    fn fsyncdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        _datasync: bool,
        reply: ReplyEmpty,
    ) {
        let mut disk = self.0.lock().unwrap();
        answer!(disk.dir(node), reply, dir => {
            dir.durable = dir.names.clone();
            reply.ok();
        });
    }

    fn readdir(
        &self,
        _: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let mut disk = self.0.lock().unwrap();
        let Some(dir) = disk.dir(node) else {
            return reply.error(Errno::ENOENT);
        };
        let mut entries = vec![
            (node.0, OsString::from(".")),
            (node.0, OsString::from("..")),
        ];
        entries.extend(
            dir.names
                .iter()
                .map(|(name, number)| (*number, name.clone())),
        );
        for (index, (number, name)) in entries.into_iter().enumerate().skip(offset as usize) {
            let kind = match disk.nodes.get(&number) {
                Some(Node::File(_)) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            if reply.add(INodeNo(number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }
}
