//! The audit log: rows in a chain, each sealed over the one before. What a row says and how it is sealed is the caller's; here is
//! the order, which the catalog's lock keeps.
//!
//! Row: `seq u64 BE` → `version u8 | seal of the one before (32) | own seal (32) | body`.

use storage::{Engine, Error, Keyspace, ShardId};

use crate::rows::{self, Tag};
use crate::{Effects, Locked, Slot};

/// What a row is sealed with: a hash.
pub type Seal = [u8; 32];

const VERSION: u8 = 1;
/// Rows that are kept, some 250 bytes each; the oldest goes for each new one.
pub const ROWS_MAX: u64 = 1_000_000;

/// The end of the chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chain {
    /// Number of the next row; the first is 1.
    pub next: u64,
    /// Of the last row; zeros before the first.
    pub last: Seal,
}

/// One row as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub seq: u64,
    pub before: Seal,
    pub seal: Seal,
    pub body: Vec<u8>,
}

impl Chain {
    /// Where the stored rows end.
    ///
    /// # Errors
    /// When the tables cannot be read, or the last row is of a later build.
    pub(crate) fn load(engine: &Engine) -> Result<Self, Error> {
        let prefix = rows::prefix(Slot::CATALOG, Tag::Audit);
        let end = rows::prefix_end(&prefix);
        let mut last = Ok(None);
        engine.scan_rev(
            Keyspace::Rows,
            &prefix,
            end.as_deref(),
            1,
            &mut |key, value| {
                last = read(key, value).map(Some).ok_or(());
                false
            },
        )?;
        match last {
            Ok(row) => Ok(row.map_or(
                Self {
                    next: 1,
                    last: [0; 32],
                },
                |row| Self {
                    next: row.seq + 1,
                    last: row.seal,
                },
            )),
            Err(()) => Err(Error::Damaged {
                path: "the audit log".into(),
                offset: 0,
                what: "its last row does not read".to_owned(),
            }),
        }
    }
}

fn key(seq: u64) -> [u8; 11] {
    rows::object_prefix(Slot::CATALOG, Tag::Audit, seq)
}

fn read(key: &[u8], value: &[u8]) -> Option<Row> {
    let seq = key.get(3..)?.first_chunk::<8>()?;
    let (&[VERSION], rest) = value.split_first_chunk::<1>()? else {
        return None;
    };
    let (before, rest) = rest.split_first_chunk::<32>()?;
    let (seal, body) = rest.split_first_chunk::<32>()?;
    Some(Row {
        seq: u64::from_be_bytes(*seq),
        before: *before,
        seal: *seal,
        body: body.to_vec(),
    })
}

/// Adds a row; `seal` makes its seal of the one before, its number and its body. Locks: the catalog.
pub fn append(
    locked: &mut Locked<'_>,
    body: &[u8],
    seal: impl FnOnce(&Seal, u64, &[u8]) -> Seal,
    fx: &mut Effects,
) {
    let chain = &mut locked.catalog().audit;
    let (seq, before) = (chain.next, chain.last);
    let sealed = seal(&before, seq, body);
    *chain = Chain {
        next: seq + 1,
        last: sealed,
    };
    let mut value = vec![VERSION];
    value.extend_from_slice(&before);
    value.extend_from_slice(&sealed);
    value.extend_from_slice(body);
    fx.put(ShardId::CATALOG, &key(seq), &value);
    if let Some(old) = seq.checked_sub(ROWS_MAX).filter(|old| *old > 0) {
        fx.del(ShardId::CATALOG, &key(old));
    }
}

/// Visits the rows behind number `after` in order, those of the tables: fold before. `None`: a row that does not read.
///
/// # Errors
/// When the tables cannot be read.
pub fn each(
    engine: &Engine,
    after: u64,
    visit: &mut dyn FnMut(Option<Row>) -> bool,
) -> Result<(), Error> {
    let end = rows::prefix_end(&rows::prefix(Slot::CATALOG, Tag::Audit));
    engine.scan(
        Keyspace::Rows,
        &key(after.saturating_add(1)),
        end.as_deref(),
        usize::MAX,
        &mut |key, value| visit(read(key, value)),
    )
}
