//! Lua scripts of Redis clients: which ones there are, and the one that runs.
//!
//! A script runs as `MULTI`/`EXEC` does: under all data shards' locks (its keys need not be declared), as one record of the log. The
//! interpreter is Lua 5.1, one per thread; see [`sandbox`] for what a script can see.

mod api;
mod bits;
pub(super) mod convert;
mod json;
pub(super) mod library;
mod msgpack;
mod number;
pub(super) mod sandbox;
mod structs;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use broker::functions::{FunctionFlags, Library};
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::RwLock;
use sha1::{Digest, Sha1};

use super::fail::{Fail, lossy};

/// Scripts that came by `EVAL` and are remembered: as Redis 7.4 and Valkey.
const EVALUATED_MAX: usize = 500;
/// Octets of all scripts that are remembered. Nobody but `SCRIPT FLUSH` forgets those of `SCRIPT LOAD`.
const BYTES_MAX: usize = 256 << 20;

/// SHA-1 of a script.
pub(crate) type Digest20 = [u8; 20];

pub(crate) fn digest(body: &[u8]) -> Digest20 {
    Sha1::digest(body).into()
}

pub(crate) fn hex(digest: &Digest20) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A digest as a client writes it, in either case.
pub(crate) fn parse_digest(text: &[u8]) -> Option<Digest20> {
    let mut digest = Digest20::default();
    if text.len() != 2 * digest.len() {
        return None;
    }
    let nibble = |byte: u8| {
        (byte as char)
            .to_digit(16)
            .and_then(|n| u8::try_from(n).ok())
    };
    for (byte, pair) in digest.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(digest)
}

/// What scripts and functions say about themselves. `allow-stale` is about replicas, which there are not.
pub(crate) const FLAGS: [(FunctionFlags, &str); 5] = [
    (FunctionFlags::NO_WRITES, "no-writes"),
    (FunctionFlags::ALLOW_OOM, "allow-oom"),
    (FunctionFlags::ALLOW_STALE, "allow-stale"),
    (FunctionFlags::NO_CLUSTER, "no-cluster"),
    (
        FunctionFlags::ALLOW_CROSS_SLOT_KEYS,
        "allow-cross-slot-keys",
    ),
];

/// What its first line says about a script.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Header {
    /// It has one, so that it says whether it writes.
    pub(crate) present: bool,
    pub(crate) flags: FunctionFlags,
    /// Where the code begins: at the end of the line, so that lines are counted as the author does.
    code: usize,
}

impl Header {
    fn parse(body: &[u8]) -> Result<Self, Fail> {
        if !body.starts_with(b"#!") {
            return Ok(Self::default());
        }
        let Some(code) = memchr::memchr(b'\n', body) else {
            return Err(Fail::Text("ERR Invalid script shebang"));
        };
        let line = body.get(..code).unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let engine = words.next().unwrap_or_default();
        if engine != b"#!lua" {
            return Err(Fail::Owned(format!(
                "ERR Unexpected engine in script shebang: {}",
                lossy(engine, 128)
            )));
        }
        let mut header = Self {
            present: true,
            flags: FunctionFlags::default(),
            code,
        };
        for word in words {
            let Some(flags) = word.strip_prefix(b"flags=") else {
                return Err(Fail::Owned(format!(
                    "ERR Unknown lua shebang option: {}",
                    lossy(word, 128)
                )));
            };
            for flag in flags.split(|byte| *byte == b',') {
                let known = FLAGS.iter().find(|(_, name)| name.as_bytes() == flag);
                let Some((known, _)) = known else {
                    return Err(Fail::Owned(format!(
                        "ERR Unexpected flag in script shebang: {}",
                        lossy(flag, 128)
                    )));
                };
                header.flags = header.flags.and(*known);
            }
        }
        Ok(header)
    }
}

/// One script.
#[derive(Debug)]
pub(crate) struct Script {
    pub(crate) digest: Digest20,
    pub(crate) body: Vec<u8>,
    pub(crate) header: Header,
    /// Runs without a slow one among them.
    quick: AtomicU32,
}

/// What a client asks to run.
#[derive(Debug, Clone)]
pub(crate) enum Program {
    Script(Arc<Script>),
    /// The function at this place of a library.
    Function(Arc<Library>, usize),
}

impl Program {
    /// A run below this is quick.
    const QUICK: Duration = Duration::from_millis(1);
    /// After so many quick ones a program is trusted to end soon.
    const TRUSTED: u32 = 2;

    pub(crate) fn is_function(&self) -> bool {
        matches!(self, Self::Function(..))
    }

    fn function(&self) -> Option<&broker::functions::Function> {
        match self {
            Self::Script(_) => None,
            Self::Function(library, place) => library.functions.get(*place),
        }
    }

    /// As errors name it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Script(script) => hex(&script.digest),
            Self::Function(..) => self
                .function()
                .map_or_else(String::new, |function| function.name.to_string()),
        }
    }

    /// What it says about itself. `None`: a script that says nothing.
    pub(crate) fn flags(&self) -> Option<FunctionFlags> {
        match self {
            Self::Script(script) => script.header.present.then_some(script.header.flags),
            Self::Function(..) => self.function().map(|function| function.flags),
        }
    }

    /// It need not be asked for memory: it may have what there is not, or will not write.
    pub(crate) fn may_grow(&self) -> bool {
        let of = FunctionFlags::NO_WRITES.and(FunctionFlags::ALLOW_OOM);
        self.flags().is_some_and(|flags| flags.has(of))
    }

    /// It says that it does not write.
    pub(crate) fn no_writes(&self) -> bool {
        self.flags()
            .is_some_and(|flags| flags.has(FunctionFlags::NO_WRITES))
    }

    fn pace(&self) -> Option<&AtomicU32> {
        match self {
            Self::Script(script) => Some(&script.quick),
            Self::Function(..) => self.function().map(|function| &function.pace),
        }
    }

    pub(crate) fn is_quick(&self) -> bool {
        self.pace()
            .is_some_and(|quick| quick.load(Ordering::Relaxed) >= Self::TRUSTED)
    }

    pub(crate) fn ran(&self, took: Duration) {
        let Some(quick) = self.pace() else { return };
        if took > Self::QUICK {
            quick.store(0, Ordering::Relaxed);
        } else if !self.is_quick() {
            quick.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Script {
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Fail> {
        Ok(Self {
            digest: digest(body),
            header: Header::parse(body)?,
            body: body.to_vec(),
            quick: AtomicU32::new(0),
        })
    }

    /// Without its header.
    fn code(&self) -> &[u8] {
        self.body.get(self.header.code..).unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Known {
    scripts: HashMap<Digest20, Arc<Script>, RandomState>,
    /// Those of `EVAL`, oldest first. One that was loaded since stays, when its turn comes.
    evaluated: VecDeque<Digest20>,
    loaded: HashMap<Digest20, (), RandomState>,
    bytes: usize,
}

/// All scripts of the node: in memory only, as Redis keeps them.
#[derive(Debug, Default)]
pub(crate) struct Scripts {
    known: RwLock<Known>,
    /// Grows with each `SCRIPT FLUSH`: interpreters of before are thrown away.
    generation: AtomicU64,
}

impl Scripts {
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    pub(crate) fn get(&self, digest: &Digest20) -> Option<Arc<Script>> {
        self.known.read().scripts.get(digest).cloned()
    }

    /// Remembers a script that compiles; `stay`: until `SCRIPT FLUSH`.
    pub(crate) fn remember(&self, script: Arc<Script>, stay: bool) -> Result<(), Fail> {
        let mut known = self.known.write();
        let known = &mut *known;
        let (digest, size) = (script.digest, script.body.len());
        if known.bytes.saturating_add(size) > BYTES_MAX {
            return Err(Fail::Text(
                "ERR too many scripts are remembered, SCRIPT FLUSH forgets them",
            ));
        }
        if stay {
            known.loaded.insert(digest, ());
        }
        if known.scripts.insert(digest, script).is_some() {
            return Ok(());
        }
        known.bytes += size;
        if !stay {
            known.evaluated.push_back(digest);
        }
        while known.evaluated.len() > EVALUATED_MAX {
            let Some(oldest) = known.evaluated.pop_front() else {
                break;
            };
            if !known.loaded.contains_key(&oldest)
                && let Some(gone) = known.scripts.remove(&oldest)
            {
                known.bytes -= gone.body.len();
            }
        }
        Ok(())
    }

    /// How many are remembered.
    pub(crate) fn count(&self) -> usize {
        self.known.read().scripts.len()
    }

    /// Bytes of all of them.
    pub(crate) fn bytes(&self) -> usize {
        self.known.read().bytes
    }

    pub(crate) fn flush(&self) {
        *self.known.write() = Known::default();
        self.generation.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
