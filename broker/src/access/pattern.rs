//! Names that a grant is about.

use super::{GLOB_NAME_MAX, PATTERN_MAX};
use crate::cache::{literal_prefix, matches_soon};

/// A set of names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pattern {
    /// This name alone.
    Literal(Box<[u8]>),
    /// Every name that begins so; an empty prefix is every name.
    Prefix(Box<[u8]>),
    /// As in `KEYS`: `*`, `?`, `[a-c]`, `[^x]`, `\`.
    Glob(Box<[u8]>),
}

impl Pattern {
    /// `None` when it is too long. A glob that is a prefix or a literal becomes one: those are looked up, globs are tried.
    #[must_use]
    pub fn glob(text: &[u8]) -> Option<Self> {
        if text.len() > PATTERN_MAX {
            return None;
        }
        let literal = literal_prefix(text);
        Some(match text.get(literal.len()..) {
            None | Some([]) => Self::Literal(text.into()),
            Some(b"*") => Self::Prefix(literal.into()),
            Some(_) => Self::Glob(text.into()),
        })
    }

    /// `None` when it is too long.
    #[must_use]
    pub fn literal(text: &[u8]) -> Option<Self> {
        (text.len() <= PATTERN_MAX).then(|| Self::Literal(text.into()))
    }

    /// `None` when it is too long.
    #[must_use]
    pub fn prefix(text: &[u8]) -> Option<Self> {
        (text.len() <= PATTERN_MAX).then(|| Self::Prefix(text.into()))
    }

    /// The octets that were given.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        match self {
            Self::Literal(text) | Self::Prefix(text) | Self::Glob(text) => text,
        }
    }

    /// The word for this kind of pattern.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Literal(_) => "literal",
            Self::Prefix(_) => "prefix",
            Self::Glob(_) => "glob",
        }
    }

    /// Is every name that `glob` (as in `PSUBSCRIBE`) matches one of these? May say no to a yes, never the other way round.
    pub(super) fn covers(&self, glob: &[u8]) -> bool {
        match self {
            Self::Literal(text) => **text == *glob && literal_prefix(glob) == glob,
            Self::Prefix(text) => literal_prefix(glob).starts_with(text),
            Self::Glob(text) => **text == *glob,
        }
    }

    /// May a name that `glob` matches be one of these? May say yes to a no, never the other way round.
    #[must_use]
    pub fn may_meet(&self, glob: &[u8]) -> bool {
        let compatible = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
        match self {
            Self::Literal(text) => matches_soon(glob, text).unwrap_or(true),
            Self::Prefix(text) => compatible(literal_prefix(glob), text),
            Self::Glob(text) => compatible(literal_prefix(glob), literal_prefix(text)),
        }
    }

    /// The byte of the row's key.
    pub(super) const fn byte(&self) -> u8 {
        match self {
            Self::Literal(_) => b'l',
            Self::Prefix(_) => b'p',
            Self::Glob(_) => b'g',
        }
    }

    pub(super) fn read(byte: u8, text: &[u8]) -> Option<Self> {
        match byte {
            b'l' => Self::literal(text),
            b'p' => Self::prefix(text),
            b'g' if text.len() <= PATTERN_MAX => Some(Self::Glob(text.into())),
            _ => None,
        }
    }
}

/// Does a glob of a grant match? `None`: the name is too long to be tried, or both were made to take long.
pub(super) fn glob_matches(glob: &[u8], name: &[u8]) -> Option<bool> {
    if name.len() > GLOB_NAME_MAX {
        return None;
    }
    matches_soon(glob, name)
}
