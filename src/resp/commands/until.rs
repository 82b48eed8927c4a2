//! What commands with options say of deadlines: `EX n`, `PX n`, `EXAT n`, `PXAT n`, or a word in place of them.

use protocol_resp::Args;

use crate::resp::fail::Fail;
use crate::resp::parse::{int, is};

/// What is to become of a deadline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Until<'a> {
    #[default]
    Unsaid,
    /// `KEEPTTL` or `PERSIST`, whichever the command knows.
    Word,
    /// The unit and its number, which is read when all options are known.
    Deadline(&'static str, &'a [u8]),
}

impl<'a> Until<'a> {
    /// Takes the option at `at`, if it is one of these; its number must stand in front of `end`. The place of what was read last. The
    /// same one may come again, another one may not.
    pub(super) fn take(
        &mut self,
        args: &Args<'a>,
        at: usize,
        end: usize,
        word: &str,
    ) -> Result<Option<usize>, Fail> {
        let option = args.at(at);
        if is(option, word) {
            if matches!(self, Self::Deadline(..)) {
                return Err(Fail::Syntax);
            }
            *self = Self::Word;
            return Ok(Some(at));
        }
        let units = ["EX", "PX", "EXAT", "PXAT"];
        let Some(unit) = units.into_iter().find(|unit| is(option, unit)) else {
            return Ok(None);
        };
        let free = match self {
            Self::Unsaid => true,
            Self::Word => false,
            Self::Deadline(other, _) => *other == unit,
        };
        if !free || at + 1 >= end {
            return Err(Fail::Syntax);
        }
        *self = Self::Deadline(unit, args.at(at + 1));
        Ok(Some(at + 1))
    }

    /// The deadline in ms since the epoch, if one is named; its number is at least `least`.
    pub(super) fn deadline(self, least: i64, now: u64, command: &str) -> Result<Option<u64>, Fail> {
        match self {
            Self::Deadline(unit, text) => deadline(unit, text, least, now, command).map(Some),
            Self::Unsaid | Self::Word => Ok(None),
        }
    }
}

/// Reads `EX n`, `PX n`, `EXAT n`, `PXAT n`, of which `n` is at least `least`: a deadline in ms since the epoch.
pub(super) fn deadline(
    unit: &str,
    value: &[u8],
    least: i64,
    now: u64,
    command: &str,
) -> Result<u64, Fail> {
    let value = int(value)?;
    let invalid = || Fail::Owned(format!("ERR invalid expire time in '{command}' command"));
    if value < least {
        return Err(invalid());
    }
    let ms = if matches!(unit, "EX" | "EXAT") {
        value.checked_mul(1000)
    } else {
        Some(value)
    };
    let relative = matches!(unit, "EX" | "PX");
    ms.and_then(|ms| {
        if relative {
            i64::try_from(now).ok()?.checked_add(ms)
        } else {
            Some(ms)
        }
    })
    .and_then(|ms| u64::try_from(ms).ok())
    .ok_or_else(invalid)
}
