//! `resp-maxmemory-rules`: limits of memory for some keys, as a person writes them.
//!
//! ```text
//! prefix=cache: max=64mb policy=allkeys-lru; db=1 max=32mb policy=volatile-ttl
//! ```

use std::fmt::Write;

use broker::cache::{Bounds, DATABASES, Policy, RULES_MAX, Rule};

use super::{Size, Value};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryRules(pub Vec<Rule>);

impl Value for Policy {
    const KIND: &'static str = "policy (noeviction, allkeys-lru, volatile-ttl, …)";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("`{text}` is not a policy; write one of {names}")
        })
    }

    fn show(&self) -> String {
        self.name().into()
    }
}

impl Value for MemoryRules {
    const KIND: &'static str = "rules (db=0 prefix=cache: max=64mb policy=allkeys-lru; …)";

    fn parse(text: &str) -> Result<Self, String> {
        let texts = text.split(';').map(str::trim);
        let rules: Result<Vec<Rule>, String> =
            texts.filter(|text| !text.is_empty()).map(rule).collect();
        let rules = rules?;
        if rules.len() > RULES_MAX {
            return Err(format!(
                "there can be {RULES_MAX} rules, and these are {}",
                rules.len()
            ));
        }
        Ok(Self(rules))
    }

    fn show(&self) -> String {
        let rules: Vec<String> = self.0.iter().map(show).collect();
        rules.join("; ")
    }
}

fn rule(text: &str) -> Result<Rule, String> {
    let (mut db, mut prefix, mut max, mut policy) = (None, None, None, None);
    for word in text.split_whitespace() {
        let (name, value) = word.split_once('=').unwrap_or((word, ""));
        let before = match name {
            "db" => db.replace(database(value)?).is_some(),
            "prefix" => prefix.replace(decoded(value)?).is_some(),
            "max" => max.replace(<Size as Value>::parse(value)?.0).is_some(),
            "policy" => policy.replace(<Policy as Value>::parse(value)?).is_some(),
            _ => {
                return Err(format!(
                    "`{word}` is none of db=, prefix=, max= and policy="
                ));
            }
        };
        if before {
            return Err(format!("`{name}` stands twice in `{text}`"));
        }
    }
    if db.is_none() && prefix.as_ref().is_none_or(Vec::is_empty) {
        return Err(format!(
            "`{text}` must say whose keys it means: db=, prefix= or both"
        ));
    }
    let (Some(max_bytes @ 1..), Some(policy)) = (max, policy) else {
        return Err(format!("`{text}` needs max= (more than 0) and policy="));
    };
    Ok(Rule {
        db,
        prefix: prefix.unwrap_or_default(),
        bounds: Bounds { max_bytes, policy },
    })
}

fn database(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| *number < DATABASES);
    number.ok_or_else(|| {
        format!(
            "`{text}` is not a database; write a number from 0 to {}",
            DATABASES - 1
        )
    })
}

/// `%` and two hexadecimal digits are an octet, for what a rule cannot hold otherwise.
fn decoded(text: &str) -> Result<Vec<u8>, String> {
    let mut octets = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        octets.push(match first {
            b'%' => {
                let digits = behind
                    .get(..2)
                    .and_then(|digits| std::str::from_utf8(digits).ok());
                let octet = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
                rest = behind.get(2..).unwrap_or_default();
                octet.ok_or_else(|| format!("`{text}`: behind % stand two hexadecimal digits"))?
            }
            other => *other,
        });
    }
    Ok(octets)
}

fn show(rule: &Rule) -> String {
    let mut text = String::new();
    if let Some(db) = rule.db {
        let _ = write!(text, "db={db} ");
    }
    if !rule.prefix.is_empty() {
        text.push_str("prefix=");
        for octet in &rule.prefix {
            if octet.is_ascii_graphic() && !b"%;".contains(octet) {
                text.push(char::from(*octet));
            } else {
                let _ = write!(text, "%{octet:02x}");
            }
        }
        text.push(' ');
    }
    let (max, policy) = (
        Size(rule.bounds.max_bytes).show(),
        rule.bounds.policy.name(),
    );
    text + &format!("max={max} policy={policy}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_shown() {
        let text = " prefix=cache: max=64mb policy=allkeys-lru;db=1 prefix=a%20b%3b max=100 policy=Volatile-TTL; ";
        let rules = MemoryRules::parse(text).expect("rules");
        assert_eq!(rules.0.len(), 2);
        assert_eq!(rules.0[1].prefix, b"a b;");
        let shown = "prefix=cache: max=64MiB policy=allkeys-lru; db=1 prefix=a%20b%3b max=100B policy=volatile-ttl";
        assert_eq!(rules.show(), shown);
        assert_eq!(MemoryRules::parse(shown), Ok(rules));
        assert_eq!(MemoryRules::parse(""), Ok(MemoryRules::default()));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("max=1 policy=allkeys-lru", "whose keys"),
            ("prefix= max=1 policy=allkeys-lru", "whose keys"),
            ("db=1 policy=allkeys-lru", "needs max="),
            ("db=1 max=0 policy=allkeys-lru", "needs max="),
            ("db=1 max=1", "needs max="),
            ("db=16 max=1 policy=allkeys-lru", "not a database"),
            ("db=1 max=1 policy=lru", "not a policy"),
            ("db=1 db=2 max=1 policy=allkeys-lru", "twice"),
            ("db=1 max=1 policy=allkeys-lru else", "none of"),
            ("prefix=%2 max=1 policy=allkeys-lru", "hexadecimal"),
        ] {
            let wrong = MemoryRules::parse(text).expect_err(text);
            assert!(wrong.contains(part), "{text}: {wrong}");
        }
        let many = "db=1 max=1 policy=allkeys-lru;".repeat(RULES_MAX + 1);
        assert!(MemoryRules::parse(&many).is_err());
    }
}
