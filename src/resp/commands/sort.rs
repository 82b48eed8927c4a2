//! `SORT`: the elements of a list, set or sorted set in order, by themselves or by what other keys hold.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use broker::cache::{Error, Held, Kind, Member, NO_ELEMENTS, Name, Set, Value, View};
use broker::{ShardSet, Slot};
use protocol_resp::{Args, number};

use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, Rights};
use crate::resp::session::TRANSACTION_MAX;
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "sort",
        -2,
        WRITE.and(DENYOOM),
        Keys::With(keys, 1),
        sort,
        "1.0.0",
        "Sorts a list, set or sorted set, and may store it.",
    )
    .needing(Rights::With(permission::sort))
    .locking(Locks::With(shards)),
    on_keys(
        "sort_ro",
        -2,
        READ.and(MOVABLE),
        Keys::Range(1, 1, 1),
        sort,
        "7.0.0",
        "Sorts a list, set or sorted set.",
    )
    .needing(Rights::With(permission::sort))
    .locking(Locks::With(shards)),
];

/// What `SORT` may say behind its key.
#[derive(Debug, Default)]
pub(crate) struct Options<'a> {
    descending: bool,
    alpha: bool,
    /// Elements to skip, and how many to take.
    limit: Option<(i64, i64)>,
    /// Place of the key to store to.
    pub(crate) store: Option<usize>,
    by: Option<&'a [u8]>,
    get: Vec<&'a [u8]>,
}

impl<'a> Options<'a> {
    pub(crate) fn of(args: &Args<'a>) -> Result<Self, Fail> {
        let read_only = is(args.at(0), "SORT_RO");
        let mut options = Self::default();
        let mut at = 2;
        while let Some(word) = args.get(at) {
            let left = args.len() - at - 1;
            if is(word, "ASC") {
                options.descending = false;
            } else if is(word, "DESC") {
                options.descending = true;
            } else if is(word, "ALPHA") {
                options.alpha = true;
            } else if is(word, "LIMIT") && left >= 2 {
                options.limit = Some((int(args.at(at + 1))?, int(args.at(at + 2))?));
                at += 2;
            } else if is(word, "STORE") && left >= 1 && !read_only {
                options.store = Some(at + 1);
                at += 1;
            } else if is(word, "BY") && left >= 1 {
                options.by = Some(args.at(at + 1));
                at += 1;
            } else if is(word, "GET") && left >= 1 {
                options.get.push(args.at(at + 1));
                at += 1;
            } else {
                return Err(Fail::Syntax);
            }
            at += 1;
        }
        Ok(options)
    }

    /// Keys are looked at whose names come from the elements.
    pub(crate) fn looks_elsewhere(&self) -> bool {
        self.by.is_some_and(|pattern| pattern.contains(&b'*'))
            || self.get.iter().any(|pattern| pattern.contains(&b'*'))
    }

    /// In a cluster, keys that elements name must be in the slot of what is sorted, which their pattern must say.
    fn keep_to(&self, slot: Slot) -> Done {
        let elsewhere = |pattern: &[u8]| slot_of_pattern(pattern) != Some(slot);
        if self
            .by
            .is_some_and(|by| by.contains(&b'*') && elsewhere(by))
        {
            return Err(Fail::Text(
                "ERR BY option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
            ));
        }
        if self.get.iter().any(|get| *get != b"#" && elsewhere(get)) {
            return Err(Fail::Text(
                "ERR GET option of SORT denied in Cluster mode when keys formed by the pattern may be in different slots.",
            ));
        }
        Ok(())
    }

    /// Places of a vector of `len` elements that are wanted.
    fn range(&self, len: usize) -> Range<usize> {
        let (skip, take) = self.limit.unwrap_or((0, -1));
        let start = usize::try_from(skip).unwrap_or(0).min(len);
        let take = usize::try_from(take).unwrap_or(usize::MAX);
        start..start.saturating_add(take).min(len)
    }
}

/// The slot of all keys that a pattern can mean, if there is one.
fn slot_of_pattern(pattern: &[u8]) -> Option<Slot> {
    let special = pattern.iter().position(|octet| b"*?[\\".contains(octet));
    let Some(fixed) = special.and_then(|place| pattern.get(..place)) else {
        return Some(Slot::of(pattern));
    };
    let open = fixed.iter().position(|octet| *octet == b'{')?;
    let tag = fixed.get(open + 1..)?;
    let length = tag.iter().position(|octet| *octet == b'}')?;
    (length > 0).then(|| Slot::of(fixed))
}

fn keys(args: &Args<'_>, visit: &mut dyn FnMut(usize)) {
    visit(1);
    if let Ok(options) = Options::of(args) {
        options.store.into_iter().for_each(visit);
    }
}

/// Keys named by elements may be anywhere.
fn shards(args: &Args<'_>) -> ShardSet {
    let mut set = ShardSet::of(Slot::of(args.at(1)).shard());
    if let Ok(options) = Options::of(args) {
        if options.looks_elsewhere() {
            return ShardSet::DATA;
        }
        if let Some(place) = options.store {
            set = set.with(Slot::of(args.at(place)).shard());
        }
    }
    set
}

/// What a pattern stands for with an element in place of its star: `#` is the element, `key->field` a field of a hash.
fn look(cx: &mut Exec<'_, '_>, pattern: &[u8], element: &[u8]) -> Result<Option<Vec<u8>>, Fail> {
    if pattern == b"#" {
        return Ok(Some(element.to_vec()));
    }
    let Some(star) = pattern.iter().position(|byte| *byte == b'*') else {
        return Ok(None);
    };
    let (front, back) = (
        pattern.get(..star).unwrap_or_default(),
        pattern.get(star + 1..).unwrap_or_default(),
    );
    // An arrow at the very end names no field, and is part of the key.
    let arrow = back
        .windows(2)
        .position(|two| two == b"->")
        .filter(|at| at + 2 < back.len());
    let (back, field) = match arrow {
        Some(at) => (back.get(..at).unwrap_or_default(), back.get(at + 2..)),
        None => (back, None),
    };
    let key = [front, element, back].concat();
    let (name, mut view, _) = cx.on(&key);
    let found = match field {
        Some(field) => view
            .hash(&name, [field])
            .map(|hash| hash.and_then(|hash| hash.get(field)).map(<[u8]>::to_vec)),
        None => view.string(&name).map(|text| text.map(Member::to_vec)),
    };
    match found {
        // A key of another type counts as missing.
        Err(Error::WrongType) => Ok(None),
        found => Ok(found?),
    }
}

/// The elements in their own order; `from_end`: those of a list or sorted set from the last one.
fn elements(view: &mut View<'_>, name: &Name<'_>, from_end: bool) -> Result<Vec<Vec<u8>>, Fail> {
    let mut all = Vec::new();
    match view.value(name)? {
        None => {}
        Some(Held::Object(Value::List(list))) => all.extend(list.iter().map(<[u8]>::to_vec)),
        Some(Held::Object(Value::Zset(_))) => {
            view.ranked(name, NO_ELEMENTS, |zset| {
                let ranks = 0..zset.len();
                zset.each(ranks, false, |member, _| all.push(member.to_vec()))?;
                Ok::<_, Fail>(())
            })?;
        }
        Some(Held::Object(Value::Set(_))) => {
            if let Some(members) = view.elements::<Set>(name)? {
                members.each(&mut |member, _| all.push(member.to_vec()))?;
            }
            // It has no order to turn round.
            return Ok(all);
        }
        Some(_) => return Err(Fail::WrongType),
    }
    if from_end {
        all.reverse();
    }
    Ok(all)
}

/// What an element is sorted by.
#[derive(Debug)]
enum Weight {
    Number(f64),
    /// `None`: the key that the pattern names is not there.
    Text(Option<Vec<u8>>),
}

fn weigh(
    cx: &mut Exec<'_, '_>,
    by: Option<&[u8]>,
    alpha: bool,
    element: &[u8],
) -> Result<Weight, Fail> {
    let text = match by {
        Some(pattern) => look(cx, pattern, element)?.map(Cow::Owned),
        None => Some(Cow::Borrowed(element)),
    };
    if alpha {
        return Ok(Weight::Text(text.map(Cow::into_owned)));
    }
    // As `strtod` reads it, but for what is out of range. What is missing or empty weighs nothing.
    let weight = match text.as_deref().unwrap_or_default() {
        b"" => Some(0.0),
        text => number::parse_f64(text.trim_ascii_start()),
    };
    weight.map(Weight::Number).ok_or(Fail::Text(
        "ERR One or more scores can't be converted into double",
    ))
}

fn compare((a, x): &(Vec<u8>, Weight), (b, y): &(Vec<u8>, Weight)) -> Ordering {
    match (x, y) {
        (Weight::Number(x), Weight::Number(y)) => x
            .partial_cmp(y)
            .unwrap_or(Ordering::Equal)
            .then_with(|| a.cmp(b)),
        // What is missing comes first.
        (Weight::Text(x), Weight::Text(y)) => x.cmp(y),
        _ => Ordering::Equal,
    }
}

/// The elements that are wanted, in order.
fn sorted(cx: &mut Exec<'_, '_>, key: &[u8], options: &Options<'_>) -> Result<Vec<Vec<u8>>, Fail> {
    let scripted = cx.in_transaction;
    let (name, mut view, _) = cx.on(key);
    let kind = view.kind(&name)?;
    let mut by = options.by;
    let mut alpha = options.alpha;
    let mut as_it_is = by.is_some_and(|pattern| !pattern.contains(&b'*'));
    if as_it_is && kind == Some(Kind::Set) && (options.store.is_some() || scripted) {
        // A set has no order of its own; what is stored, or given to a script, must have one.
        (as_it_is, alpha, by) = (false, true, None);
    }
    let from_end = as_it_is && options.descending;
    let mut all = elements(&mut view, &name, from_end)?;
    let wanted = options.range(all.len());
    if !as_it_is {
        let mut weighed = Vec::with_capacity(all.len());
        for element in all {
            let weight = weigh(cx, by, alpha, &element)?;
            weighed.push((element, weight));
        }
        if options.descending {
            weighed.sort_by(|a, b| compare(b, a));
        } else {
            weighed.sort_by(compare);
        }
        all = weighed.into_iter().map(|(element, _)| element).collect();
    }
    all.truncate(wanted.end);
    Ok(all.split_off(wanted.start.min(all.len())))
}

/// What the patterns name for each element, to be stored; what is not there is empty. All elements may name one long value, so
/// there is a limit: it is that of a transaction, since it is one record.
fn looked_up(
    cx: &mut Exec<'_, '_>,
    elements: &[Vec<u8>],
    patterns: &[&[u8]],
) -> Result<Vec<Vec<u8>>, Fail> {
    /// What an item takes beside its bytes, about.
    const ITEM: usize = 32;
    let (mut size, mut all) = (0, Vec::new());
    for element in elements {
        for pattern in patterns {
            let text = look(cx, pattern, element)?.unwrap_or_default();
            size += text.len() + ITEM;
            if size > TRANSACTION_MAX {
                return Err(Error::TooLarge.into());
            }
            all.push(text);
        }
    }
    Ok(all)
}

fn sort(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = Options::of(args)?;
    if super::cluster::is_on(cx.node) {
        options.keep_to(Slot::of(args.at(1)))?;
    }
    let found = sorted(cx, args.at(1), &options)?;
    let Some(place) = options.store else {
        cx.out.array(found.len() * options.get.len().max(1));
        for element in &found {
            if options.get.is_empty() {
                cx.out.bulk(element);
            }
            for pattern in &options.get {
                match look(cx, pattern, element)? {
                    Some(text) => cx.out.bulk(&text),
                    None => cx.out.null(),
                }
            }
        }
        return Ok(());
    };
    let shown = if options.get.is_empty() {
        found
    } else {
        looked_up(cx, &found, &options.get)?
    };
    let (name, mut view, out) = cx.on(args.at(place));
    if shown.is_empty() {
        view.delete(&name)?;
    } else {
        let items = shown.iter().map(Vec::as_slice);
        view.put(&name, View::make_list(items), broker::cache::Expire::Never)?;
    }
    out.count(shown.len());
    Ok(())
}
