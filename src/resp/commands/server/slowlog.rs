//! `SLOWLOG` and `LATENCY`.

use std::fmt::Write;

use protocol_resp::{Args, Encoder};

use super::help;
use crate::resp::commands;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::int;
use crate::resp::session::Session;
use crate::resp::slowlog::Series;
use crate::resp::tally::Record;

pub(super) fn slowlog_get(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    const WRONG: Fail = Fail::Text("ERR count should be greater than or equal to -1");
    let count = match args.get(2) {
        None => Some(10),
        Some(text) => match int(text) {
            Ok(-1) => None,
            Ok(count) => Some(usize::try_from(count).map_err(|_| WRONG)?),
            Err(_) => return Err(WRONG),
        },
    };
    if args.len() > 3 {
        return Err(Fail::Text(
            "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.",
        ));
    }
    let newest = session.hub.slowlog.newest(count);
    let mut out = Encoder::new(out, session.version);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    out.array(newest.len());
    for slow in newest {
        out.array(6);
        out.integer(number(slow.id));
        out.integer(number(slow.at_s));
        out.integer(number(slow.took_us));
        out.array(slow.args.len());
        slow.args.iter().for_each(|arg| out.bulk(arg));
        out.bulk(slow.peer.as_bytes());
        out.bulk(slow.name.as_bytes());
    }
    Ok(())
}

pub(super) fn slowlog_len(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).count(session.hub.slowlog.len());
    Ok(())
}

pub(super) fn slowlog_reset(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.hub.slowlog.reset();
    Encoder::new(out, session.version).ok();
    Ok(())
}

pub(super) fn slowlog_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "SLOWLOG",
        &[
            (
                "GET [<count>]",
                "Return top <count> entries from the slowlog (default: 10, -1 mean all): id, timestamp, time in microseconds, arguments, client address, client name.",
            ),
            ("LEN", "Return the length of the slowlog."),
            ("RESET", "Reset the slowlog."),
        ],
    );
    Ok(())
}

pub(super) fn history(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let events = session.hub.latency.events();
    let found = events
        .iter()
        .find(|(event, _)| args.at(2) == event.as_bytes());
    let mut out = Encoder::new(out, session.version);
    let samples = found.map(|(_, series)| &series.samples);
    out.array(samples.map_or(0, |samples| samples.len()));
    for (at_s, ms) in samples.into_iter().flatten() {
        out.array(2);
        out.integer(i64::try_from(*at_s).unwrap_or(i64::MAX));
        out.integer(i64::try_from(*ms).unwrap_or(i64::MAX));
    }
    Ok(())
}

pub(super) fn latest(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let events = session.hub.latency.events();
    let mut out = Encoder::new(out, session.version);
    out.array(events.len());
    for (event, series) in events {
        let (at_s, ms) = series.samples.back().copied().unwrap_or_default();
        out.array(4);
        out.bulk(event.as_bytes());
        for value in [at_s, ms, series.max_ms] {
            out.integer(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }
    Ok(())
}

pub(super) fn latency_reset(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let named: Vec<&[u8]> = args.iter().skip(2).collect();
    Encoder::new(out, session.version).count(session.hub.latency.reset(&named));
    Ok(())
}

pub(super) fn graph(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let events = session.hub.latency.events();
    let found = events
        .iter()
        .find(|(event, _)| args.at(2) == event.as_bytes());
    let Some((event, series)) = found else {
        return Err(Fail::Owned(format!(
            "ERR No samples available for event '{}'",
            lossy(args.at(2), 128)
        )));
    };
    let text = draw(event, series, session.ctx.now.0 / 1000);
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

/// The samples as columns, oldest first, each with its age under it.
fn draw(event: &str, series: &Series, now_s: u64) -> String {
    /// Columns and lines of the drawing.
    const WIDTH: usize = 80;
    const LINES: u64 = 4;
    let samples: Vec<(u64, u64)> = {
        let skip = series.samples.len().saturating_sub(WIDTH);
        series.samples.iter().skip(skip).copied().collect()
    };
    let high = samples.iter().map(|(_, ms)| *ms).max().unwrap_or(0);
    let low = samples.iter().map(|(_, ms)| *ms).min().unwrap_or(0);
    let mut text = format!(
        "{event} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_ms,
        "-".repeat(WIDTH)
    );
    // Three heights in each line.
    const HEIGHTS: u64 = LINES * 3;
    let height = |ms: u64| 1 + (ms - low) * (HEIGHTS - 1) / (high - low).max(1);
    for line in (0..LINES).rev() {
        for (_, ms) in &samples {
            text.push(match height(*ms).saturating_sub(line * 3) {
                0 if line == 0 => '_',
                0 => ' ',
                1 => '_',
                2 => 'o',
                _ => '#',
            });
        }
        text.push('\n');
    }
    text.push('\n');
    let ages: Vec<String> = samples
        .iter()
        .map(|(at_s, _)| age(now_s.saturating_sub(*at_s)))
        .collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    for place in 0..longest {
        for age in &ages {
            text.push(age.chars().nth(place).unwrap_or(' '));
        }
        text.push('\n');
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

pub(super) fn doctor(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let (latency, slowlog) = (&session.hub.latency, &session.hub.slowlog);
    let threshold = latency
        .threshold_ms
        .load(std::sync::atomic::Ordering::Relaxed);
    let mut text = String::new();
    // Writing to a String cannot fail.
    if threshold == 0 {
        text.push_str(
            "Latency monitoring is disabled. Turn it on with CONFIG SET latency-monitor-threshold <milliseconds>.\n",
        );
    } else {
        let events = latency.events();
        if events.is_empty() {
            let _ = writeln!(
                text,
                "No command took {threshold} ms or more since monitoring began."
            );
        }
        for (event, series) in &events {
            let count = series.samples.len();
            let sum: u64 = series.samples.iter().map(|(_, ms)| ms).sum();
            let mean = sum / (count as u64).max(1);
            let _ = writeln!(
                text,
                "{event}: {count} latency spikes, {mean} ms on average, {} ms at worst.",
                series.max_ms
            );
        }
        if !events.is_empty() {
            let _ = writeln!(
                text,
                "See SLOWLOG GET for the commands; slowlog-log-slower-than is {} microseconds.",
                slowlog
                    .threshold_us
                    .load(std::sync::atomic::Ordering::Relaxed)
            );
        }
    }
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

pub(super) fn histogram(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let records = session.hub.tally.records();
    let wanted: Vec<String> = args
        .iter()
        .skip(2)
        .map(|name| lossy(name, 64).to_ascii_lowercase())
        .collect();
    let chosen: Vec<&Record> = if wanted.is_empty() {
        records.iter().collect()
    } else {
        // A container stands for its subcommands.
        let named = |name: &String| {
            let has_subs =
                commands::lookup_name(name.as_bytes()).is_some_and(|spec| !spec.sub.is_empty());
            let prefix = format!("{name}|");
            records
                .iter()
                .filter(move |record| {
                    record.name == prefix.trim_end_matches('|')
                        || (has_subs && record.name.starts_with(&prefix))
                })
                .collect::<Vec<_>>()
        };
        wanted.iter().flat_map(named).collect()
    };
    let chosen: Vec<&Record> = chosen
        .into_iter()
        .filter(|record| record.calls > 0)
        .collect();
    let mut out = Encoder::new(out, session.version);
    let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    out.map(chosen.len());
    for record in chosen {
        out.bulk(record.name.as_bytes());
        out.map(2);
        out.bulk(b"calls");
        out.integer(number(record.calls));
        out.bulk(b"histogram_usec");
        let steps = record.distribution();
        out.map(steps.len());
        for (limit, calls) in steps {
            out.integer(number(limit));
            out.integer(number(calls));
        }
    }
    Ok(())
}

pub(super) fn latency_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "LATENCY",
        &[
            ("DOCTOR", "Return a human readable latency analysis report."),
            (
                "GRAPH <event>",
                "Return an ASCII latency graph for the <event> class.",
            ),
            (
                "HISTORY <event>",
                "Return time-latency samples for the <event> class.",
            ),
            (
                "LATEST",
                "Return the latest latency samples for all events.",
            ),
            (
                "RESET [<event> ...]",
                "Reset latency data of one or more <event> classes (default: all).",
            ),
            (
                "HISTOGRAM [COMMAND ...]",
                "Return a cumulative distribution of latencies of the specified commands (default: all).",
            ),
        ],
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_has_a_column_for_each_sample() {
        let series = Series {
            max_ms: 40,
            samples: [(100, 10), (160, 21), (170, 32)].into(),
        };
        let text = draw("command", &series, 180);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "command - high 32 ms, low 10 ms (all time high 40 ms)"
        );
        assert_eq!(lines[2..6], ["  #", "  #", " ##", "_##"]);
        assert_eq!(lines[7..], ["121", "m00", " ss"]);
        assert_eq!(
            (age(59), age(60), age(90_000)),
            ("59s".into(), "1m".into(), "1d".into())
        );
    }
}
