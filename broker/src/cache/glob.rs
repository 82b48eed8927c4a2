//! Patterns as in `KEYS`, `SCAN MATCH` and `PSUBSCRIBE`: `*`, `?`, `[a-c]`, `[^x]`, `\` before any of them.

/// What trying stars again may cost besides [`RETRIES_EACH`] per octet of the text: what a pattern of 512 octets can cost on a
/// key of 4 KiB.
const RETRIES: usize = 4 << 20;
const RETRIES_EACH: usize = 16;

/// Does the whole text match? Linear in the text for each `*`: only the last star is tried again. The two lengths multiplied
/// would still be minutes for patterns and keys of a megabyte that were made for it (CVE-2022-36021): then it does not match.
#[must_use]
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_soon(pattern, text).unwrap_or(false)
}

/// The same for those who must know that a match was not found out: `None`, it would take too long.
pub(crate) fn matches_soon(pattern: &[u8], text: &[u8]) -> Option<bool> {
    let (mut p, mut t) = (pattern, text);
    // After the last star: the pattern behind it and the text it has not swallowed yet.
    let mut star: Option<(&[u8], &[u8])> = None;
    let mut left = text
        .len()
        .saturating_mul(RETRIES_EACH)
        .saturating_add(RETRIES);
    loop {
        let step = match p {
            [b'*', rest @ ..] => {
                star = Some((rest, t));
                p = rest;
                continue;
            }
            [] if t.is_empty() => return Some(true),
            [] => None,
            _ => t
                .split_first()
                .and_then(|(&byte, tail)| one(p, byte).map(|rest| (rest, tail))),
        };
        match (step, star) {
            (Some((rest, tail)), _) => (p, t) = (rest, tail),
            (None, Some((behind, swallowed))) => {
                let Some((_, tail)) = swallowed.split_first() else {
                    return Some(false);
                };
                // What was looked at since this star was tried last; a class that does not match may be as long as the pattern.
                let class = if p.first() == Some(&b'[') { p.len() } else { 0 };
                let looked = swallowed.len() - t.len() + behind.len() - p.len() + class + 1;
                left = left.checked_sub(looked)?;
                star = Some((behind, tail));
                (p, t) = (behind, tail);
            }
            (None, None) => return Some(false),
        }
    }
}

/// Matches one byte with the front of the pattern (not a star); the pattern behind it.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    match pattern {
        [b'?', rest @ ..] => Some(rest),
        [b'[', rest @ ..] => class(rest, byte),
        [b'\\', literal, rest @ ..] | [literal, rest @ ..] => (*literal == byte).then_some(rest),
        [] => None,
    }
}

fn class(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (negated, mut p) = match pattern {
        [b'^', rest @ ..] => (true, rest),
        _ => (false, pattern),
    };
    let mut found = false;
    loop {
        match p {
            // A class that is not closed ends with the pattern.
            [] => break,
            [b']', rest @ ..] => {
                p = rest;
                break;
            }
            [b'\\', literal, rest @ ..] => {
                found |= *literal == byte;
                p = rest;
            }
            [from, b'-', to, rest @ ..] if *to != b']' || !rest.is_empty() => {
                let (low, high) = if from <= to { (from, to) } else { (to, from) };
                found |= (*low..=*high).contains(&byte);
                p = rest;
            }
            [literal, rest @ ..] => {
                found |= *literal == byte;
                p = rest;
            }
        }
    }
    (found != negated).then_some(p)
}

/// The literal text that every match begins with.
#[must_use]
pub fn literal_prefix(pattern: &[u8]) -> &[u8] {
    let end = pattern
        .iter()
        .position(|byte| matches!(byte, b'*' | b'?' | b'[' | b'\\'))
        .unwrap_or(pattern.len());
    pattern.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn like_redis() {
        for (pattern, text, want) in [
            ("*", "", true),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h*llo", "heeeello", true),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[a-b]llo", "hbllo", true),
            ("h[b-a]llo", "hbllo", true),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("a*b*c", "axxbyybzc", true),
            ("a*b*c", "axxbyybz", false),
            ("*a", "ba", true),
            ("[", "", false),
            ("a[", "ab", false),
            ("**", "x", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                want,
                "{pattern} {text}"
            );
        }
        assert!(!matches(&b"a*".repeat(50), &b"a".repeat(49)));
    }

    #[test]
    fn made_to_take_long() {
        let began = std::time::Instant::now();
        let text = b"a".repeat(1 << 20);
        for pattern in [
            [b"*", &b"a".repeat(1 << 19)[..], b"b"].concat(),
            b"a*".repeat(1 << 19),
            b"*a".repeat(1 << 18),
            [b"*", &b"[a-z]".repeat(1 << 17)[..], b"[^a]"].concat(),
            b"*[".repeat(1 << 19),
            [b"*[", &b"\\]".repeat(1 << 19)[..]].concat(),
            b"\\".repeat(1 << 20),
            b"[".repeat(1 << 20),
        ] {
            let _ = matches(&pattern, &text);
        }
        assert!(began.elapsed().as_secs() < 5, "{:?}", began.elapsed());
        // Long, and soon found out.
        let ends = [&text[..], b"end"].concat();
        assert!(matches(b"*end", &ends) && matches(b"a*a*end", &ends));
        assert!(matches(&[&b"?".repeat(1 << 20)[..], b"*"].concat(), &ends));
    }
}
