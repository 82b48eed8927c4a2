//! Entries that a producer may send again and that are added once (Redis 8.6): `IDMP` and `IDMPAUTO` of `XADD`, and `XCFGSET`.

use broker::cache::{IdempotenceSettings, Need};
use protocol_resp::Args;
use xxhash_rust::xxh3::Xxh3;

use super::ONE;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[on_keys(
    "xcfgset",
    -2,
    WRITE.and(FAST),
    ONE,
    xcfgset,
    "8.6.0",
    "Sets for how long and for how many entries a stream knows what its producers have added.",
)];

/// By whom an entry is added.
#[derive(Debug, Clone, Copy)]
pub(super) struct Once<'a> {
    pub(super) producer: &'a [u8],
    /// The id that the producer chose for it; `None`: the entry's digest.
    pub(super) chosen: Option<&'a [u8]>,
}

/// `IDMP producer id` or `IDMPAUTO producer` at `at`, and how many words follow the first. `None`: something else.
pub(super) fn once<'a>(args: &Args<'a>, at: usize) -> Result<Option<(Once<'a>, usize)>, Fail> {
    let (word, more) = (args.at(at), args.len() - at - 1);
    let producer = args.get(at + 1).unwrap_or_default();
    if more >= 1 && is(word, "IDMPAUTO") {
        if producer.is_empty() {
            return Err(Fail::Text(
                "ERR syntax error, IDMPAUTO requires a non-empty producer ID",
            ));
        }
        let chosen = None;
        return Ok(Some((Once { producer, chosen }, 1)));
    }
    if more >= 2 && is(word, "IDMP") {
        if producer.is_empty() {
            return Err(Fail::Text(
                "ERR syntax error, IDMP requires a non-empty producer ID",
            ));
        }
        let chosen = args.get(at + 2).filter(|chosen| !chosen.is_empty());
        if chosen.is_none() {
            return Err(Fail::Text(
                "ERR syntax error, IDMP requires a non-empty idempotent ID",
            ));
        }
        return Ok(Some((Once { producer, chosen }, 2)));
    }
    Ok(None)
}

/// What stands for an entry's fields and values, in whatever order they come: as in Redis, so that an id which was noted there is
/// known here.
pub(super) fn digest<'a>(pairs: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> [u8; 16] {
    let (mut sums, mut parities) = ([0u64; 2], [0u64; 2]);
    let mut hasher = Xxh3::new();
    for (field, value) in pairs {
        hasher.reset();
        hasher.update(field);
        // So that no octet can go from the one to the other.
        hasher.update(&(field.len() as u64).to_le_bytes());
        hasher.update(value);
        let hash = hasher.digest128();
        let halves = [hash as u64, (hash >> 64) as u64];
        for (half, (sum, parity)) in halves.into_iter().zip(sums.iter_mut().zip(&mut parities)) {
            *sum = sum.wrapping_add(half);
            *parity ^= half;
        }
    }
    let low = sums[0] ^ parities[1].rotate_left(1);
    let high = sums[1] ^ parities[0].rotate_left(1);
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

/// `XCFGSET key [IDMP-DURATION seconds] [IDMP-MAXSIZE ids]`.
fn xcfgset(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let stream = view.stream(&name)?.ok_or(Fail::NoKey)?;
    let mut settings = stream.idempotence_settings();
    let (mut duration_s, mut ids_max) = (None, None);
    let mut at = 2;
    while let Some(word) = args.get(at) {
        let value = args.get(at + 1).ok_or(Fail::Syntax)?;
        if is(word, "IDMP-DURATION") {
            if duration_s.is_some() {
                return Err(Fail::Text("ERR IDMP-DURATION specified multiple times"));
            }
            let wanted = u64::try_from(int(value)?).ok();
            let allowed = wanted.filter(|wanted| IdempotenceSettings::DURATIONS_S.contains(wanted));
            duration_s = Some(allowed.ok_or(Fail::Text(
                "ERR IDMP-DURATION must be between 1 and 86400 seconds",
            ))?);
        } else if is(word, "IDMP-MAXSIZE") {
            if ids_max.is_some() {
                return Err(Fail::Text("ERR IDMP-MAXSIZE specified multiple times"));
            }
            let wanted = u64::try_from(int(value)?).ok();
            let allowed = wanted.filter(|wanted| IdempotenceSettings::SIZES.contains(wanted));
            ids_max = Some(allowed.ok_or(Fail::Text(
                "ERR IDMP-MAXSIZE must be between 1 and 10000 entries",
            ))?);
        } else {
            return Err(Fail::Syntax);
        }
        at += 2;
    }
    if duration_s.or(ids_max).is_none() {
        return Err(Fail::Text("ERR At least one parameter must be specified"));
    }
    settings.duration_s = duration_s.unwrap_or(settings.duration_s);
    settings.ids_max = ids_max.unwrap_or(settings.ids_max);
    view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
        stream.configure(settings, rows)
    })?;
    out.ok();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_do_not_depend_on_the_order_of_fields() {
        let of = |pairs: &[(&str, &str)]| {
            digest(pairs.iter().map(|(f, v)| (f.as_bytes(), v.as_bytes())))
        };
        let one = of(&[("a", "1"), ("b", "2")]);
        assert_eq!(one, of(&[("b", "2"), ("a", "1")]));
        for other in [
            &[("a", "2"), ("b", "1")][..],
            &[("a1", ""), ("b", "2")],
            &[("a", "1")],
            &[("a", "1"), ("b", "2"), ("b", "2")],
        ] {
            assert_ne!(one, of(other), "{other:?}");
        }
    }
}
