//! How a library lies on disk.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use storage::{Error, ShardId};

use super::{Function, FunctionFlags, Library};
use crate::rows::{self, Tag};
use crate::{Effects, Slot};

const VERSION: u8 = 1;
/// The length of a description that is not there.
const NONE: u32 = u32::MAX;

fn key(name: &str) -> Vec<u8> {
    let mut key = rows::prefix(Slot::CATALOG, Tag::Library).to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

/// A library within its limits, so that all lengths fit.
pub(super) fn put(library: &Library, fx: &mut Effects) {
    let mut head = vec![VERSION];
    let count = u16::try_from(library.functions.len()).unwrap_or(u16::MAX);
    head.extend_from_slice(&count.to_le_bytes());
    for function in &library.functions {
        head.push(function.flags.0);
        let length = u16::try_from(function.name.len()).unwrap_or(u16::MAX);
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(function.name.as_bytes());
        let description = function.description.as_deref();
        let length = description.map_or(NONE, |text| u32::try_from(text.len()).unwrap_or(NONE));
        head.extend_from_slice(&length.to_le_bytes());
        head.extend_from_slice(description.unwrap_or_default());
    }
    fx.put_parts(
        ShardId::CATALOG,
        &[&key(&library.name)],
        &[&head, &library.text],
    );
}

pub(super) fn delete(name: &str, fx: &mut Effects) {
    fx.del(ShardId::CATALOG, &key(name));
}

fn take<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(count)?;
    *rest = behind;
    Some(taken)
}

fn take_array<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, behind) = rest.split_first_chunk::<N>()?;
    *rest = behind;
    Some(*taken)
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Library> {
    let (_, name) = key.split_first_chunk::<3>()?;
    let mut rest = value;
    if take_array::<1>(&mut rest)? != [VERSION] {
        return None;
    }
    let mut functions = Vec::new();
    for _ in 0..u16::from_le_bytes(take_array(&mut rest)?) {
        let [flags] = take_array(&mut rest)?;
        let length = u16::from_le_bytes(take_array(&mut rest)?);
        let name = text(take(&mut rest, usize::from(length))?)?;
        let description = match u32::from_le_bytes(take_array(&mut rest)?) {
            NONE => None,
            length => Some(take(&mut rest, usize::try_from(length).ok()?)?.into()),
        };
        functions.push(Function {
            name: name.into(),
            description,
            flags: FunctionFlags(flags),
            pace: AtomicU32::default(),
        });
    }
    Some(Library {
        name: Arc::from(text(name)?),
        text: rest.into(),
        functions,
    })
}

pub(super) fn unreadable(key: &[u8], value: &[u8]) -> Error {
    rows::unreadable(key, value, VERSION, "a library that does not read")
}
