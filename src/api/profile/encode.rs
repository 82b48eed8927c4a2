//! The format of pprof: https://github.com/google/pprof/blob/main/proto/profile.proto, as far as a CPU profile needs it.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pprof::Frames;
use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "9")]
    time_nanos: i64,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
    #[prost(message, repeated, tag = "3")]
    label: Vec<Label>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Label {
    #[prost(int64, tag = "1")]
    key: i64,
    #[prost(int64, tag = "2")]
    text: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "3")]
    system_name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Texts by number; the first is empty.
struct Texts {
    all: Vec<String>,
    known: HashMap<String, i64>,
}

impl Texts {
    fn number(&mut self, text: String) -> i64 {
        if let Some(number) = self.known.get(&text) {
            return *number;
        }
        // A profile has some thousands.
        let number = self.all.len() as i64;
        self.all.push(text.clone());
        self.known.insert(text, number);
        number
    }
}

/// The profile's bytes, not compressed. `took`: from the first sample to the last.
pub(super) fn pprof(stacks: &HashMap<Frames, isize>, hertz: i32, took: Duration) -> Vec<u8> {
    let mut texts = Texts {
        all: vec![String::new()],
        known: HashMap::from([(String::new(), 0)]),
    };
    let mut kind = |name: &str, unit: &str| ValueType {
        kind: texts.number(name.to_owned()),
        unit: texts.number(unit.to_owned()),
    };
    let (samples, time) = (kind("samples", "count"), kind("cpu", "nanoseconds"));
    let period = 1_000_000_000 / i64::from(hertz.max(1));
    let thread = texts.number("thread".to_owned());
    let mut functions: HashMap<(i64, i64), Function> = HashMap::new();
    let mut locations: HashMap<Vec<(u64, i64)>, Location> = HashMap::new();
    let mut profile = Profile {
        sample_type: vec![samples, time],
        period_type: Some(time),
        period,
        time_nanos: nanos(
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        ) - nanos(took),
        duration_nanos: nanos(took),
        ..Profile::default()
    };
    for (stack, count) in stacks {
        let mut sample = Sample::default();
        for inlined in &stack.frames {
            let mut lines = Vec::new();
            for symbol in inlined {
                let name = texts.number(symbol.name());
                let system_name = texts.number(symbol.sys_name().into_owned());
                let filename = texts.number(symbol.filename().into_owned());
                let next = functions.len() as u64 + 1;
                let function = functions.entry((name, filename)).or_insert(Function {
                    id: next,
                    name,
                    system_name,
                    filename,
                });
                lines.push((function.id, i64::from(symbol.lineno())));
            }
            let next = locations.len() as u64 + 1;
            let location = locations.entry(lines).or_insert_with_key(|lines| Location {
                id: next,
                line: lines
                    .iter()
                    .map(|&(function_id, line)| Line { function_id, line })
                    .collect(),
            });
            sample.location_id.push(location.id);
        }
        let count = *count as i64;
        sample.value = vec![count, count.saturating_mul(period)];
        sample.label = vec![Label {
            key: thread,
            text: texts.number(stack.thread_name_or_id()),
        }];
        profile.sample.push(sample);
    }
    profile.location = locations.into_values().collect();
    profile.function = functions.into_values().collect();
    profile.string_table = texts.all;
    profile.encode_to_vec()
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sampled_can_be_read_back() {
        let symbol = |name: &str| pprof::Symbol {
            name: Some(name.as_bytes().to_vec()),
            addr: None,
            lineno: Some(7),
            filename: Some("a.rs".into()),
        };
        let frames = |thread: &str| Frames {
            // The second was inlined into the third.
            frames: vec![vec![symbol("leaf")], vec![symbol("inner"), symbol("outer")]],
            thread_name: thread.to_owned(),
            thread_id: 1,
            sample_timestamp: UNIX_EPOCH,
        };
        let stacks = HashMap::from([(frames("one"), 2), (frames("two"), 3)]);
        let bytes = pprof(&stacks, 100, Duration::from_secs(1));
        let profile = Profile::decode(&bytes[..]).unwrap();
        let text = |number: i64| profile.string_table[number as usize].as_str();
        let values: Vec<_> = profile
            .sample_type
            .iter()
            .map(|value| (text(value.kind), text(value.unit)))
            .collect();
        assert_eq!(values, [("samples", "count"), ("cpu", "nanoseconds")]);
        let mut seen: Vec<String> = Vec::new();
        for sample in &profile.sample {
            let mut line = format!("{} {:?}:", text(sample.label[0].text), sample.value);
            for id in &sample.location_id {
                let location = profile.location.iter().find(|at| at.id == *id).unwrap();
                for at in &location.line {
                    let function = profile.function.iter().find(|f| f.id == at.function_id);
                    line += &format!(" {}:{}", text(function.unwrap().name), at.line);
                }
                line.push(',');
            }
            seen.push(line);
        }
        seen.sort_unstable();
        assert_eq!(
            seen,
            [
                "one [2, 20000000]: leaf:7, inner:7 outer:7,",
                "two [3, 30000000]: leaf:7, inner:7 outer:7,"
            ]
        );
        assert_eq!((profile.function.len(), profile.location.len()), (3, 2));
    }
}
