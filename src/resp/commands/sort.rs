//! `SORT`: the elements of a list, set or sorted set in order, by themselves or by what other keys hold.

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

/// Bytes of elements, and of what they are sorted by, that are kept at once: as many as are copied at once.
const KEPT_MAX: usize = 1 << 30;
/// What one of them takes beside its bytes, about.
const ELEMENT: usize = 64;

/// Visits the elements in their own order; `from_end`: those of a list or sorted set from the last one. A set that is larger than
/// memory is read as it lies in the tables, together with what memory knows better.
fn each(
    view: &mut View<'_>,
    name: &Name<'_>,
    from_end: bool,
    visit: &mut dyn FnMut(&[u8]) -> Done,
) -> Done {
    match view.value(name)? {
        None => Ok(()),
        Some(Held::Object(Value::List(_))) => {
            let mut done = Ok(());
            if let Some(list) = view.listed(name)? {
                list.each_while(0..list.len(), from_end, |item| {
                    done = visit(item);
                    done.is_ok()
                })?;
            }
            done
        }
        Some(Held::Object(Value::Zset(_))) => {
            let mut done = Ok(());
            view.ranked(name, NO_ELEMENTS, |zset| {
                let ranks = 0..zset.len();
                zset.each_while(ranks, from_end, |member, _| {
                    done = visit(member);
                    done.is_ok()
                })
            })?;
            done
        }
        Some(Held::Object(Value::Set(_))) => {
            let mut done = Ok(());
            if let Some(members) = view.elements::<Set>(name)? {
                // It has no order to turn round.
                members.each(&mut |member, _| {
                    if done.is_ok() {
                        done = member.with(&mut *visit);
                    }
                })?;
            }
            done
        }
        Some(_) => Err(Fail::WrongType),
    }
}

/// How many elements there are.
fn count(view: &mut View<'_>, name: &Name<'_>) -> Result<usize, Fail> {
    match view.value(name)? {
        None => Ok(0),
        Some(Held::Object(Value::List(list))) => Ok(list.len()),
        Some(Held::Object(Value::Zset(_))) => {
            let members = view.ranked(name, NO_ELEMENTS, |zset| Ok::<_, Error>(zset.len()))?;
            Ok(members.unwrap_or(0))
        }
        Some(Held::Object(Value::Set(_))) => {
            let members = view.elements::<Set>(name)?;
            Ok(members.map_or(0, |members| members.len()))
        }
        Some(_) => Err(Fail::WrongType),
    }
}

/// What an element is sorted by.
#[derive(Debug)]
enum Weight {
    Number(f64),
    /// `None`: the key that the pattern names is not there.
    Text(Option<Vec<u8>>),
}

impl Weight {
    fn of(text: Option<&[u8]>, alpha: bool) -> Result<Self, Fail> {
        if alpha {
            return Ok(Self::Text(text.map(<[u8]>::to_vec)));
        }
        // As `strtod` reads it, but for what is out of range. What is missing or empty weighs nothing.
        let weight = match text.unwrap_or_default() {
            b"" => Some(0.0),
            text => number::parse_f64(text.trim_ascii_start()),
        };
        weight.map(Self::Number).ok_or(Fail::Text(
            "ERR One or more scores can't be converted into double",
        ))
    }
}

/// Elements with their weights, of which only those are kept that come first in the end.
#[derive(Debug)]
struct Best {
    descending: bool,
    /// So many are wanted.
    end: usize,
    kept: Vec<Weighed>,
    bytes: usize,
    seen: u64,
}

#[derive(Debug)]
struct Weighed {
    element: Vec<u8>,
    weight: Weight,
    /// Among those that weigh the same.
    place: u64,
}

impl Weighed {
    fn bytes(&self) -> usize {
        let weight = match &self.weight {
            Weight::Text(Some(text)) => text.len(),
            Weight::Text(None) | Weight::Number(_) => 0,
        };
        self.element.len() + weight + ELEMENT
    }
}

impl Best {
    fn new(descending: bool, end: usize) -> Self {
        Self {
            descending,
            end,
            kept: Vec::new(),
            bytes: 0,
            seen: 0,
        }
    }

    fn take(&mut self, element: &[u8], weight: Weight) -> Done {
        /// Fewer are not thinned out.
        const FEW: usize = 1024;
        let weighed = Weighed {
            element: element.to_vec(),
            weight,
            place: self.seen,
        };
        self.seen += 1;
        self.bytes += weighed.bytes();
        self.kept.push(weighed);
        if self.kept.len() >= self.end.saturating_mul(2).max(FEW) {
            let descending = self.descending;
            if let Some(last) = self.end.checked_sub(1) {
                let order = |a: &Weighed, b: &Weighed| order(a, b, descending);
                self.kept.select_nth_unstable_by(last, order);
            }
            self.kept.truncate(self.end);
            self.bytes = self.kept.iter().map(Weighed::bytes).sum();
        }
        fits(self.bytes)
    }

    fn sorted(mut self) -> Vec<Vec<u8>> {
        let descending = self.descending;
        self.kept.sort_unstable_by(|a, b| order(a, b, descending));
        self.kept.truncate(self.end);
        self.kept.into_iter().map(|one| one.element).collect()
    }
}

fn fits(bytes: usize) -> Done {
    if bytes > KEPT_MAX {
        return Err(Fail::Text("ERR there is too much to be sorted at once"));
    }
    Ok(())
}

fn order(a: &Weighed, b: &Weighed, descending: bool) -> Ordering {
    let weights = match (&a.weight, &b.weight) {
        (Weight::Number(x), Weight::Number(y)) => x
            .partial_cmp(y)
            .unwrap_or(Ordering::Equal)
            .then_with(|| a.element.cmp(&b.element)),
        // What is missing comes first.
        (Weight::Text(x), Weight::Text(y)) => x.cmp(y),
        _ => Ordering::Equal,
    };
    let weights = if descending {
        weights.reverse()
    } else {
        weights
    };
    weights.then(a.place.cmp(&b.place))
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
    let wanted = options.range(count(&mut view, &name)?);
    let (mut all, mut bytes) = (Vec::new(), 0);
    let mut collect = |element: &[u8]| {
        bytes += element.len() + ELEMENT;
        all.push(element.to_vec());
        fits(bytes)
    };
    let mut all = if as_it_is {
        let mut left = wanted.end;
        each(&mut view, &name, options.descending, &mut |element| {
            if left == 0 {
                return Ok(());
            }
            left -= 1;
            collect(element)
        })?;
        all
    } else {
        let mut best = Best::new(options.descending, wanted.end);
        match by {
            None => each(&mut view, &name, false, &mut |element| {
                best.take(element, Weight::of(Some(element), alpha)?)
            })?,
            // Who looks at other keys does not look at this one meanwhile.
            Some(pattern) => {
                each(&mut view, &name, false, &mut collect)?;
                for element in all {
                    let text = look(cx, pattern, &element)?;
                    best.take(&element, Weight::of(text.as_deref(), alpha)?)?;
                }
            }
        }
        best.sorted()
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(best: Best) -> Vec<String> {
        let sorted = best.sorted().into_iter();
        sorted
            .map(|text| String::from_utf8(text).unwrap())
            .collect()
    }

    #[test]
    fn only_what_is_wanted_is_kept() {
        let numbers: Vec<u64> = (0..20_000).map(|n| n * 7919 % 20_011).collect();
        let mut wanted = numbers.clone();
        wanted.sort_unstable();
        for (descending, end) in [(false, 10), (true, 10), (false, 0), (true, 3000)] {
            let mut best = Best::new(descending, end);
            for number in &numbers {
                let text = number.to_string();
                let weight = Weight::of(Some(text.as_bytes()), false).unwrap();
                best.take(text.as_bytes(), weight).unwrap();
                assert!(best.kept.len() <= (2 * end).max(1024));
            }
            let mut first: Vec<String> = wanted.iter().map(u64::to_string).collect();
            if descending {
                first.reverse();
            }
            first.truncate(end);
            assert_eq!(texts(best), first);
        }
    }

    #[test]
    fn what_weighs_the_same_stays_in_order() {
        for descending in [false, true] {
            let mut best = Best::new(descending, 1500);
            for n in 0..5000 {
                let weight = Weight::of(Some(b"same"), true).unwrap();
                best.take(format!("{n:04}").as_bytes(), weight).unwrap();
            }
            let all: Vec<String> = (0..1500).map(|n| format!("{n:04}")).collect();
            assert_eq!(texts(best), all);
        }
    }

    #[test]
    fn too_much_is_refused() {
        let mut best = Best::new(false, usize::MAX);
        best.bytes = KEPT_MAX;
        assert!(best.take(b"x", Weight::Number(0.0)).is_err());
    }
}
