//! What `COMMAND DOCS` tells besides a command's row: what it costs, and what stands behind its name.
//!
//! The latter is written as one line per command in [`table`], and read here:
//!
//! ```text
//! key  destination:k  count:i       an argument: `key` and `:k` keys, `:i` integers, `:d` doubles, `:p` globs, `:t` times, else text
//! REV                               a word as it is
//! LIMIT count:i                     an argument behind the word that announces it
//! (order=ASC|DESC)                  one of them
//! (data=field value)...             both, and again and again; `+...` with the word in front each time
//! [count:i [ANY]]                   may be left out
//! ```

mod hints;
mod history;
mod table;

use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use protocol_resp::Encoder;

/// What is known of one command.
#[derive(Debug)]
pub(crate) struct Docs {
    pub(crate) complexity: &'static str,
    pub(crate) arguments: Vec<Argument>,
    /// Versions, and what changed in them.
    pub(crate) history: &'static [(&'static str, &'static str)],
    /// See [`hints`].
    pub(crate) tips: Vec<&'static str>,
    /// What happens to the keys of each place of keys; empty: what follows from the command's flags.
    pub(crate) key_flags: Vec<Vec<&'static str>>,
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    name: String,
    kind: Kind,
    token: Option<&'static str>,
    optional: bool,
    multiple: bool,
    /// The token comes again with each.
    multiple_token: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// With its type's name.
    Plain(&'static str),
    OneOf(Vec<Argument>),
    Block(Vec<Argument>),
}

const WORD: Kind = Kind::Plain("pure-token");

static DOCS: LazyLock<HashMap<&'static str, Docs, FixedState>> = LazyLock::new(|| {
    let read = |(name, complexity, syntax): &(&'static str, &'static str, &'static str)| {
        let docs = Docs {
            complexity,
            arguments: parse(syntax).unwrap_or_default(),
            history: &[],
            tips: Vec::new(),
            key_flags: Vec::new(),
        };
        (*name, docs)
    };
    let mut all: HashMap<_, _, FixedState> = table::ALL.iter().map(read).collect();
    for (name, history) in history::ALL {
        all.entry(*name).and_modify(|docs| docs.history = history);
    }
    for (tips, names) in hints::TIPS {
        for name in names.split(' ') {
            let tips = tips.split(' ').collect();
            all.entry(name).and_modify(|docs| docs.tips = tips);
        }
    }
    for (places, names) in hints::KEY_FLAGS {
        for name in names.split(' ') {
            let flags = places.split('|').map(|flags| flags.split(' ').collect());
            let flags = flags.collect();
            all.entry(name).and_modify(|docs| docs.key_flags = flags);
        }
    }
    all
});

/// Of a command or subcommand.
pub(crate) fn of(name: &str) -> Option<&'static Docs> {
    DOCS.get(name)
}

/// The parts of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    OpenOptional,
    CloseOptional,
    Or,
    Multiple,
    /// `+...`
    WithWord,
    /// Of a group.
    Name(&'static str),
    Text(&'static str),
}

fn tokens(line: &'static str) -> Vec<Token> {
    let mut all = Vec::new();
    let mut rest = line;
    while !rest.is_empty() {
        let (token, length) = if rest.starts_with("+...") {
            (Some(Token::WithWord), 4)
        } else if rest.starts_with("...") {
            (Some(Token::Multiple), 3)
        } else {
            match rest.as_bytes() {
                [b'(', ..] => (Some(Token::Open), 1),
                [b')', ..] => (Some(Token::Close), 1),
                [b'[', ..] => (Some(Token::OpenOptional), 1),
                [b']', ..] => (Some(Token::CloseOptional), 1),
                [b'|', ..] => (Some(Token::Or), 1),
                [b' ', ..] => (None, 1),
                _ => {
                    let ends = |c: char| "()[]| ".contains(c);
                    let plain = rest.find(ends).unwrap_or(rest.len());
                    let dots = rest.find("...").unwrap_or(rest.len());
                    let plus = rest.find("+...").unwrap_or(rest.len());
                    let length = plain.min(dots).min(plus).max(1);
                    let text = rest.get(..length).unwrap_or_default();
                    match text.split_once('=') {
                        Some((name, _)) if !name.is_empty() => {
                            (Some(Token::Name(name)), name.len() + 1)
                        }
                        _ => (Some(Token::Text(text)), length),
                    }
                }
            }
        };
        all.extend(token);
        rest = rest.get(length..).unwrap_or_default();
    }
    all
}

/// A word as a client writes it, not the name of an argument.
fn is_word(text: &str) -> bool {
    !text.bytes().any(|byte| byte.is_ascii_lowercase())
}

fn parse(line: &'static str) -> Option<Vec<Argument>> {
    let tokens = tokens(line);
    let mut rest = tokens.as_slice();
    let arguments = sequence(&mut rest)?;
    rest.is_empty().then_some(arguments)
}

fn take(rest: &mut &[Token]) -> Option<Token> {
    let (first, behind) = rest.split_first()?;
    *rest = behind;
    Some(*first)
}

/// Arguments behind each other, up to what closes them.
fn sequence(rest: &mut &[Token]) -> Option<Vec<Argument>> {
    let mut all = Vec::new();
    while let Some(token) = rest.first() {
        match token {
            Token::Close | Token::CloseOptional | Token::Or => break,
            _ => all.push(argument(rest)?),
        }
    }
    Some(all)
}

fn argument(rest: &mut &[Token]) -> Option<Argument> {
    let mut argument = match take(rest)? {
        Token::Text(word) if is_word(word) => match rest.first() {
            // What the word announces.
            Some(Token::Text(name)) if !is_word(name) => Argument {
                token: Some(word),
                ..argument(rest)?
            },
            Some(Token::Open) => Argument {
                token: Some(word),
                ..argument(rest)?
            },
            _ => plain(word.to_ascii_lowercase(), WORD, Some(word)),
        },
        Token::Text(name) => {
            let (name, kind) = match name.split_once(':') {
                Some((name, "k")) => (name, "key"),
                Some((name, "i")) => (name, "integer"),
                Some((name, "d")) => (name, "double"),
                Some((name, "p")) => (name, "pattern"),
                Some((name, "t")) => (name, "unix-time"),
                Some(_) => return None,
                None if name == "key" => (name, "key"),
                None => (name, "string"),
            };
            plain(name.to_owned(), Kind::Plain(kind), None)
        }
        Token::Open => group(rest, Token::Close, false)?,
        Token::OpenOptional => group(rest, Token::CloseOptional, true)?,
        _ => return None,
    };
    if let Some(token @ (Token::Multiple | Token::WithWord)) = rest.first() {
        argument.multiple = true;
        argument.multiple_token |= *token == Token::WithWord;
        take(rest)?;
    }
    Some(argument)
}

fn plain(name: String, kind: Kind, token: Option<&'static str>) -> Argument {
    Argument {
        name,
        kind,
        token,
        optional: false,
        multiple: false,
        multiple_token: false,
    }
}

/// What stands in brackets: alternatives, arguments that come together, or a single one.
fn group(rest: &mut &[Token], close: Token, optional: bool) -> Option<Argument> {
    let mut name = String::new();
    if let Some(Token::Name(given)) = rest.first() {
        name = (*given).to_owned();
        take(rest)?;
    }
    let mut ways = vec![sequence(rest)?];
    while rest.first() == Some(&Token::Or) {
        take(rest)?;
        ways.push(sequence(rest)?);
    }
    if take(rest)? != close || ways.iter().any(Vec::is_empty) {
        return None;
    }
    let mut argument = match &mut ways[..] {
        [way] if way.len() == 1 && name.is_empty() => way.pop()?,
        [way] => plain(name, Kind::Block(std::mem::take(way)), None),
        _ => plain(name, Kind::OneOf(ways.into_iter().map(way).collect()), None),
    };
    argument.optional |= optional;
    Some(argument)
}

/// One alternative.
fn way(mut arguments: Vec<Argument>) -> Argument {
    match (arguments.len(), arguments.pop()) {
        (1, Some(only)) => only,
        (_, last) => {
            arguments.extend(last);
            plain("block".to_owned(), Kind::Block(arguments), None)
        }
    }
}

/// Writes them as `COMMAND DOCS` does. `keys`: what it takes its keys for, see [`crate::resp::spec::Keys`].
pub(crate) fn write(out: &mut Encoder<'_>, arguments: &[Argument], key_specs: usize) {
    let mut key = 0;
    out.array(arguments.len());
    for argument in arguments {
        write_one(out, argument, key_specs, &mut key);
    }
}

fn write_one(out: &mut Encoder<'_>, argument: &Argument, key_specs: usize, key: &mut usize) {
    let (kind, inner) = match &argument.kind {
        Kind::Plain(kind) => (*kind, None),
        Kind::OneOf(inner) => ("oneof", Some(inner)),
        Kind::Block(inner) => ("block", Some(inner)),
    };
    let flags = [
        (argument.optional, "optional"),
        (argument.multiple, "multiple"),
        (argument.multiple_token, "multiple_token"),
    ];
    let flags: Vec<_> = flags.iter().filter(|(has, _)| *has).collect();
    let is_key = kind == "key" && key_specs > 0;
    let fields = [
        inner.is_none(),
        is_key,
        argument.token.is_some(),
        !flags.is_empty(),
        inner.is_some(),
    ];
    out.map(2 + fields.iter().filter(|has| **has).count());
    let text = |out: &mut Encoder<'_>, field: &str, value: &str| {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    };
    text(out, "name", &argument.name);
    text(out, "type", kind);
    if inner.is_none() {
        text(out, "display_text", &argument.name);
    }
    if is_key {
        out.bulk(b"key_spec_index");
        out.count((*key).min(key_specs - 1));
        *key += 1;
    }
    if let Some(token) = argument.token {
        out.bulk(b"token");
        out.bulk(token.as_bytes());
    }
    if !flags.is_empty() {
        out.bulk(b"flags");
        out.set(flags.len());
        flags.iter().for_each(|(_, name)| out.simple(name));
    }
    if let Some(inner) = inner {
        out.bulk(b"arguments");
        out.array(inner.len());
        for argument in inner {
            write_one(out, argument, key_specs, key);
        }
    }
}

/// The fewest words that these arguments are.
#[cfg(test)]
fn fewest(arguments: &[Argument]) -> usize {
    let one = |argument: &Argument| {
        if argument.optional {
            return 0;
        }
        let token = usize::from(argument.token.is_some() && argument.kind != WORD);
        token
            + match &argument.kind {
                Kind::Plain(_) => 1,
                Kind::OneOf(ways) => ways
                    .iter()
                    .map(|way| fewest(std::slice::from_ref(way)))
                    .min()
                    .unwrap_or(0),
                Kind::Block(inner) => fewest(inner),
            }
    };
    arguments.iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::commands;
    use crate::resp::spec::Run;

    #[test]
    fn every_command_is_documented_and_takes_as_many_arguments_as_it_says() {
        let mut known = 0;
        for (_, spec) in commands::all() {
            for spec in std::iter::once(spec).chain(spec.sub) {
                known += 1;
                let docs = of(spec.name).unwrap_or_else(|| panic!("{} has no docs", spec.name));
                let line = table::ALL.iter().find(|(name, ..)| *name == spec.name);
                let (_, complexity, syntax) = line.expect("is in the table");
                assert!(!complexity.is_empty(), "{}", spec.name);
                let arguments = parse(syntax);
                assert_eq!(
                    arguments.as_ref(),
                    Some(&docs.arguments),
                    "{}: {syntax}",
                    spec.name
                );
                if matches!(spec.run, Run::Container) || !spec.sub.is_empty() {
                    continue;
                }
                let words = 1 + usize::from(spec.name.contains('|'));
                let least = words + fewest(&docs.arguments);
                let wanted = usize::from(spec.arity.unsigned_abs());
                if spec.arity > 0 {
                    assert_eq!(least, wanted, "{}: {syntax}", spec.name);
                } else {
                    // A middle or a polygon: neither alone is the shortest.
                    let search = spec.name.starts_with("geosearch");
                    let least = least + if search { 2 } else { 0 };
                    assert!(least >= wanted, "{}: {syntax} {least}", spec.name);
                }
            }
        }
        assert_eq!(table::ALL.len(), known, "lines of nobody");
    }

    #[test]
    fn facts_are_of_commands_and_each_once() {
        for all in [hints::TIPS, hints::KEY_FLAGS] {
            let names: Vec<&str> = all.iter().flat_map(|(_, names)| names.split(' ')).collect();
            let different: std::collections::HashSet<&str> = names.iter().copied().collect();
            assert_eq!(names.len(), different.len());
            assert!(names.iter().all(|name| of(name).is_some()));
        }
        assert!(history::ALL.windows(2).all(|two| two[0].0 < two[1].0));
        for (name, changes) in history::ALL {
            assert_eq!(of(name).map(|docs| docs.history), Some(*changes), "{name}");
        }
    }

    #[test]
    fn lines_are_read_as_they_are_meant() {
        let read = |line| parse(line).expect("a line");
        let [key, condition, limit, data] = &read(
            "key [condition=NX|XX] [LIMIT (limit=offset:i count:i)] (data=field value)...",
        )[..] else {
            panic!("four arguments");
        };
        assert_eq!((key.name.as_str(), &key.kind), ("key", &Kind::Plain("key")));
        let Kind::OneOf(ways) = &condition.kind else {
            panic!("one of them");
        };
        assert_eq!(
            (condition.name.as_str(), condition.optional),
            ("condition", true)
        );
        assert_eq!(
            (ways.len(), &ways[0].kind, ways[0].token),
            (2, &WORD, Some("NX"))
        );
        assert_eq!(
            (limit.name.as_str(), limit.token, limit.optional),
            ("limit", Some("LIMIT"), true)
        );
        assert!(matches!(&limit.kind, Kind::Block(inner) if inner.len() == 2));
        assert!(data.multiple && !data.optional);
        let [get] = &read("[GET pattern:p+...]")[..] else {
            panic!("one argument");
        };
        assert!(get.optional && get.multiple && get.multiple_token);
        assert_eq!(get.token, Some("GET"));
        for bad in ["(", "a)", "[a", "a:x", "(a|)"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
