//! Conditions on what a string holds, or on its digest: `DELEX`, `DIGEST`, and what `SET` takes of both.
//!
//! The digest is XXH3 with 64 bits, as 16 hexadecimal digits (Redis 8.4).

use broker::cache::Member;
use protocol_resp::Args;
use xxhash_rust::xxh3::xxh3_64;

use super::ONE;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, wrong_arity};
use crate::resp::parse::is;
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "digest",
        2,
        READ.and(FAST),
        ONE,
        digest,
        "8.4.0",
        "Returns the XXH3 digest of a string.",
    ),
    on_keys(
        "delex",
        -2,
        WRITE.and(FAST),
        ONE,
        delex,
        "8.4.0",
        "Deletes a key if its string or digest is, or is not, the one given.",
    )
    .needing(Rights::Keys(BOTH)),
];

/// What the string that a key holds is compared with.
#[derive(Debug, Clone, Copy)]
pub(super) enum Condition<'a> {
    Equal(&'a [u8]),
    Unequal(&'a [u8]),
    DigestEqual(u64),
    DigestUnequal(u64),
}

impl<'a> Condition<'a> {
    /// Is this the word of a condition?
    pub(super) fn is_word(word: &[u8]) -> bool {
        ["IFEQ", "IFNE", "IFDEQ", "IFDNE"]
            .iter()
            .any(|known| is(word, known))
    }

    /// The condition of this word, with what stands behind it.
    pub(super) fn read(word: &[u8], with: &'a [u8]) -> Result<Self, Fail> {
        Ok(if is(word, "IFEQ") {
            Self::Equal(with)
        } else if is(word, "IFNE") {
            Self::Unequal(with)
        } else if is(word, "IFDEQ") {
            Self::DigestEqual(parse(with)?)
        } else if is(word, "IFDNE") {
            Self::DigestUnequal(parse(with)?)
        } else {
            return Err(Fail::Syntax);
        })
    }

    /// What is not there equals nothing.
    pub(super) fn holds(self, held: Option<Member<'_>>) -> bool {
        let equal =
            |test: &dyn Fn(&[u8]) -> bool| held.is_some_and(|held| held.with(|held| test(held)));
        match self {
            Self::Equal(with) => equal(&|held| held == with),
            Self::Unequal(with) => !equal(&|held| held == with),
            Self::DigestEqual(with) => equal(&|held| xxh3_64(held) == with),
            Self::DigestUnequal(with) => !equal(&|held| xxh3_64(held) == with),
        }
    }
}

/// A digest as `DIGEST` gives it, in either case.
fn parse(text: &[u8]) -> Result<u64, Fail> {
    let digits = std::str::from_utf8(text).ok();
    let digits = digits.filter(|text| text.len() == 16 && !text.starts_with('+'));
    digits
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or(Fail::Text("ERR a digest has 16 hexadecimal digits"))
}

fn digest(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    match view.string(&name)? {
        Some(held) => out.bulk(format!("{:016x}", held.with(xxh3_64)).as_bytes()),
        None => out.null(),
    }
    Ok(())
}

/// `DELEX key [IFEQ value|IFNE value|IFDEQ digest|IFDNE digest]`.
fn delex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let condition = match args.len() {
        2 => None,
        4 => Some(Condition::read(args.at(2), args.at(3))?),
        _ => return Err(wrong_arity("delex")),
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let deletes = match condition {
        None => true,
        Some(condition) => {
            let held = view.string(&name)?;
            held.is_some() && condition.holds(held)
        }
    };
    let deleted = deletes && view.delete(&name)?;
    out.integer(i64::from(deleted));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_xxh3() {
        // Of the reference implementation.
        assert_eq!(format!("{:016x}", xxh3_64(b"")), "2d06800538d394c2");
        // Of the documentation of DIGEST.
        assert_eq!(
            format!("{:016x}", xxh3_64(b"Hello world")),
            "b6acb9d84a38ff74"
        );
        assert_eq!(parse(b"2D06800538d394c2").ok(), Some(xxh3_64(b"")));
        for bad in [
            "",
            "2d06800538d394c",
            "+d06800538d394c2",
            "2d06800538d394c2 ",
            "g",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_equals_nothing() {
        let (value, number) = (Some(Member::Text(b"v")), Some(Member::Int(12)));
        assert!(Condition::Equal(b"v").holds(value) && !Condition::Equal(b"v").holds(None));
        assert!(Condition::Equal(b"12").holds(number));
        assert!(Condition::Unequal(b"v").holds(None) && !Condition::Unequal(b"v").holds(value));
        let digest = xxh3_64(b"12");
        assert!(Condition::DigestEqual(digest).holds(number));
        assert!(!Condition::DigestUnequal(digest).holds(number));
        assert!(Condition::DigestUnequal(digest).holds(None));
    }
}
