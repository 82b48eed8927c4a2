//! Places on earth, as members of a sorted set whose scores say where.

mod area;

use std::cmp::Ordering;

use broker::cache::{Error, NO_ELEMENTS, Name, Ranked, ScoreBound, Text, View, Zset};
use protocol_resp::{Args, Encoder, number};

use super::zset::{Add, add_all, ranges};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{float, int, is};
use crate::resp::permission::{self, Rights};
use crate::resp::spec::*;
use area::{LATITUDE_MAX, LONGITUDE_MAX, Point, Polygon, Shape};
use broker::access::Verbs;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "geoadd",
        -5,
        WRITE.and(DENYOOM),
        ONE,
        geoadd,
        "3.2.0",
        "Adds places.",
    ),
    on_keys(
        "geopos",
        -2,
        READ,
        ONE,
        geopos,
        "3.2.0",
        "Reads the coordinates of places.",
    ),
    on_keys(
        "geodist",
        -4,
        READ,
        ONE,
        geodist,
        "3.2.0",
        "Returns the distance between two places.",
    ),
    on_keys(
        "geohash",
        -2,
        READ,
        ONE,
        geohash,
        "3.2.0",
        "Reads places as geohash texts.",
    ),
    on_keys(
        "geosearch",
        -7,
        READ,
        ONE,
        geosearch,
        "6.2.0",
        "Finds places inside a circle, box or polygon.",
    ),
    on_keys(
        "geosearchstore",
        -8,
        WRITE.and(DENYOOM),
        Keys::Range(1, 2, 1),
        geosearchstore,
        "6.2.0",
        "Stores the places inside a circle, box or polygon.",
    )
    .needing(Rights::Split(Verbs::WRITE, Verbs::READ)),
    on_keys(
        "georadius",
        -6,
        WRITE.and(DENYOOM),
        Keys::With(source_and_target, 1),
        georadius,
        "3.2.0",
        "Finds places around coordinates, and may store them.",
    )
    .needing(Rights::With(permission::georadius)),
    on_keys(
        "georadiusbymember",
        -5,
        WRITE.and(DENYOOM),
        Keys::With(source_and_target, 1),
        georadiusbymember,
        "3.2.0",
        "Finds places around a member, and may store them.",
    )
    .needing(Rights::With(permission::georadius)),
    on_keys(
        "georadius_ro",
        -6,
        READ,
        ONE,
        georadius_ro,
        "3.2.10",
        "Finds places around coordinates.",
    ),
    on_keys(
        "georadiusbymember_ro",
        -5,
        READ,
        ONE,
        georadiusbymember_ro,
        "3.2.10",
        "Finds places around a member.",
    ),
];

/// The key that `GEORADIUS` stores to: behind the last `STORE` or `STOREDIST` among its options.
pub(crate) fn target(args: &Args<'_>) -> Option<usize> {
    let mut at = if is(args.at(0), "GEORADIUS") { 6 } else { 5 };
    let mut target = None;
    while let Some(word) = args.get(at) {
        let stores = is(word, "STORE") || is(word, "STOREDIST");
        if stores && at + 1 < args.len() {
            target = Some(at + 1);
        }
        at += if stores || is(word, "COUNT") { 2 } else { 1 };
    }
    target
}

fn source_and_target(args: &Args<'_>, visit: &mut dyn FnMut(usize)) {
    visit(1);
    target(args).into_iter().for_each(visit);
}

fn coordinates(longitude: &[u8], latitude: &[u8]) -> Result<Point, Fail> {
    let point = Point {
        longitude: float(longitude)?,
        latitude: float(latitude)?,
    };
    let Point {
        longitude,
        latitude,
    } = point;
    if longitude.abs() > LONGITUDE_MAX || latitude.abs() > LATITUDE_MAX {
        return Err(Fail::Owned(format!(
            "ERR invalid longitude,latitude pair {longitude:.6},{latitude:.6}"
        )));
    }
    Ok(point)
}

/// Metres in a unit.
fn unit(text: &[u8]) -> Result<f64, Fail> {
    [("m", 1.0), ("km", 1000.0), ("ft", 0.3048), ("mi", 1609.34)]
        .into_iter()
        .find(|(name, _)| is(text, name))
        .map(|(_, metres)| metres)
        .ok_or(Fail::Text(
            "ERR unsupported unit provided. please use M, KM, FT, MI",
        ))
}

fn geoadd(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut add = Add::default();
    let mut at = 2;
    while args.get(at).is_some_and(|word| add.take(word)) {
        at += 1;
    }
    let places = args.from(at);
    if places.is_empty() || !places.len().is_multiple_of(3) || (add.nx && add.xx) {
        return Err(Fail::Syntax);
    }
    let mut pairs = Vec::with_capacity(places.len() / 3);
    for place in (0..places.len()).step_by(3) {
        let point = coordinates(places.at(place), places.at(place + 1))?;
        pairs.push((area::score(point), places.at(place + 2)));
    }
    add_all(cx, args.at(1), &add, &pairs)
}

/// Where members are, in the order of the arguments from `from` on.
fn points(
    view: &mut View<'_>,
    name: &Name<'_>,
    args: &Args<'_>,
    from: usize,
) -> Result<Vec<Option<Point>>, Fail> {
    let zset = view.zset(name, args.iter().skip(from))?;
    let point = |member: &[u8]| zset?.score(member).map(area::point);
    Ok(args.iter().skip(from).map(point).collect())
}

/// A coordinate with up to 17 decimals.
fn coordinate(out: &mut Encoder<'_>, degrees: f64) {
    let text = format!("{degrees:.17}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if out.is_resp3() {
        out.raw(format!(",{text}\r\n").as_bytes());
    } else {
        out.bulk(text.as_bytes());
    }
}

fn place(out: &mut Encoder<'_>, point: Point) {
    out.array(2);
    coordinate(out, point.longitude);
    coordinate(out, point.latitude);
}

/// A distance with four decimals.
fn distance(out: &mut Encoder<'_>, distance: f64) {
    // What a double holds of centimetres on earth is far from the end of an i64.
    let scaled = (distance * 10_000.0).round_ties_even() as i64;
    let (sign, scaled) = (if scaled < 0 { "-" } else { "" }, scaled.unsigned_abs());
    out.bulk(format!("{sign}{}.{:04}", scaled / 10_000, scaled % 10_000).as_bytes());
}

fn geopos(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let points = points(&mut view, &name, args, 2)?;
    out.array(points.len());
    for point in points {
        match point {
            Some(point) => place(out, point),
            None => out.null_array(),
        }
    }
    Ok(())
}

fn geodist(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let metres = match args.len() {
        4 => 1.0,
        5 => unit(args.at(4))?,
        _ => return Err(Fail::Syntax),
    };
    let (name, mut view, out) = cx.on(args.at(1));
    let points = points(&mut view, &name, args, 2)?;
    match points.get(..2) {
        Some(&[Some(a), Some(b)]) => distance(out, area::distance(a, b) / metres),
        _ => out.null(),
    }
    Ok(())
}

fn geohash(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let points = points(&mut view, &name, args, 2)?;
    out.array(points.len());
    for point in points {
        match point {
            Some(point) => out.bulk(&area::letters(point)),
            None => out.null(),
        }
    }
    Ok(())
}

/// Which of the commands asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// Around the coordinates at argument 2; `true`: it may store.
    Radius(bool),
    /// Around the member at argument 2.
    Member(bool),
    Search,
    SearchStore,
}

/// Corners of a polygon: each place that may lie in it is compared with all of them, while its shard is locked.
const CORNERS_MAX: usize = 200;

/// The shape in the unit of the question, and metres in that unit.
#[derive(Debug, Clone)]
struct Size {
    shape: Shape,
    metres: f64,
}

impl Size {
    fn circle(radius: &[u8], of: &[u8]) -> Result<Self, Fail> {
        let radius = number::parse_f64(radius).ok_or(Fail::Text("ERR need numeric radius"))?;
        if radius < 0.0 {
            return Err(Fail::Text("ERR radius cannot be negative"));
        }
        let metres = unit(of)?;
        let shape = Shape::Circle {
            radius: radius * metres,
        };
        Ok(Self { shape, metres })
    }

    fn boxed(width: &[u8], height: &[u8], of: &[u8]) -> Result<Self, Fail> {
        let width = number::parse_f64(width).ok_or(Fail::Text("ERR need numeric width"))?;
        let height = number::parse_f64(height).ok_or(Fail::Text("ERR need numeric height"))?;
        if width < 0.0 || height < 0.0 {
            return Err(Fail::Text("ERR height or width cannot be negative"));
        }
        let metres = unit(of)?;
        let shape = Shape::Box {
            width: width * metres,
            height: height * metres,
        };
        Ok(Self { shape, metres })
    }

    /// `n longitude latitude …` from `at` on.
    fn polygon(args: &Args<'_>, at: usize) -> Result<(Self, Point, usize), Fail> {
        let count = number::parse_i64(args.at(at));
        let count = count.ok_or(Fail::Text("ERR invalid number of vertices"))?;
        let left = args.len().saturating_sub(at + 1) / 2;
        let count = usize::try_from(count).unwrap_or(0);
        if count < 3 || count > left {
            return Err(Fail::Text(
                "ERR GEOSEARCH BYPOLYGON must have at least 3 vertices",
            ));
        }
        if count > CORNERS_MAX {
            return Err(Fail::Owned(format!(
                "ERR a polygon has at most {CORNERS_MAX} vertices"
            )));
        }
        let places = (at + 1..).step_by(2).take(count);
        let corners = places.map(|place| coordinates(args.at(place), args.at(place + 1)));
        let corners = corners.collect::<Result<Vec<_>, _>>()?;
        let middle = area::centre(&corners);
        let size = Self {
            shape: Shape::Polygon(Polygon::new(corners)),
            metres: 1.0,
        };
        Ok((size, middle, at + count * 2))
    }
}

#[derive(Debug, Default)]
struct Options {
    with_distance: bool,
    with_hash: bool,
    with_coordinates: bool,
    any: bool,
    /// 0: all.
    count: usize,
    /// By distance.
    order: Option<Ordering>,
    /// Place of the key to store to, and whether distances are stored.
    store: Option<usize>,
    store_distance: bool,
    middle: Option<Point>,
    /// A middle was given, though there is no key to find it in.
    has_middle: bool,
    size: Option<Size>,
}

/// Where a member is.
fn member(zset: &Zset, member: &[u8]) -> Result<Point, Fail> {
    zset.score(member)
        .map(area::point)
        .ok_or(Fail::Text("ERR could not decode requested zset member"))
}

/// Reads everything behind the keys. `zset`: what is searched, if it is there.
fn options(args: &Args<'_>, how: How, zset: Option<&Zset>) -> Result<Options, Fail> {
    let mut options = Options::default();
    let find = |name: &[u8]| zset.map(|zset| member(zset, name)).transpose();
    let mut at = match how {
        How::Radius(_) => {
            options.middle = Some(coordinates(args.at(2), args.at(3))?);
            options.size = Some(Size::circle(args.at(4), args.at(5))?);
            6
        }
        How::Member(_) => {
            options.middle = find(args.at(2))?;
            // Redis does not look at the radius when there is no key.
            if zset.is_some() {
                options.size = Some(Size::circle(args.at(3), args.at(4))?);
            }
            5
        }
        How::Search => 2,
        How::SearchStore => {
            options.store = Some(1);
            3
        }
    };
    let searches = matches!(how, How::Search | How::SearchStore);
    let may_store = matches!(how, How::Radius(true) | How::Member(true));
    let (mut by_member, mut by_coordinates) = (false, false);
    let (mut circle, mut boxed, mut polygon) = (false, false, false);
    while let Some(word) = args.get(at) {
        let left = args.len() - at - 1;
        if is(word, "WITHDIST") {
            options.with_distance = true;
        } else if is(word, "WITHHASH") {
            options.with_hash = true;
        } else if is(word, "WITHCOORD") {
            options.with_coordinates = true;
        } else if is(word, "ANY") {
            options.any = true;
        } else if is(word, "ASC") {
            options.order = Some(Ordering::Less);
        } else if is(word, "DESC") {
            options.order = Some(Ordering::Greater);
        } else if is(word, "COUNT") && left >= 1 {
            options.count = usize::try_from(int(args.at(at + 1))?)
                .ok()
                .filter(|count| *count > 0)
                .ok_or(Fail::Text("ERR COUNT must be > 0"))?;
            at += 1;
        } else if may_store && left >= 1 && (is(word, "STORE") || is(word, "STOREDIST")) {
            options.store = Some(at + 1);
            options.store_distance = is(word, "STOREDIST");
            at += 1;
        } else if searches && is(word, "FROMMEMBER") && left >= 1 && !by_coordinates && !polygon {
            options.middle = find(args.at(at + 1))?;
            by_member = true;
            at += 1;
        } else if searches && is(word, "FROMLONLAT") && left >= 2 && !by_member && !polygon {
            options.middle = Some(coordinates(args.at(at + 1), args.at(at + 2))?);
            by_coordinates = true;
            at += 2;
        } else if searches && is(word, "BYRADIUS") && left >= 2 && !boxed && !polygon {
            options.size = Some(Size::circle(args.at(at + 1), args.at(at + 2))?);
            circle = true;
            at += 2;
        } else if searches && is(word, "BYBOX") && left >= 3 && !circle && !polygon {
            options.size = Some(Size::boxed(
                args.at(at + 1),
                args.at(at + 2),
                args.at(at + 3),
            )?);
            boxed = true;
            at += 3;
        } else if searches
            && is(word, "BYPOLYGON")
            && left >= 1
            && !(circle || boxed || by_member || by_coordinates)
        {
            let (size, middle, last) = Size::polygon(args, at + 1)?;
            (options.size, options.middle) = (Some(size), Some(middle));
            polygon = true;
            at = last;
        } else if how == How::SearchStore && is(word, "STOREDIST") {
            options.store_distance = true;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    options.has_middle = !searches || by_member || by_coordinates || polygon;
    Ok(options)
}

/// What options say together.
fn check(args: &Args<'_>, how: How, options: &Options) -> Done {
    let shows = options.with_distance || options.with_hash || options.with_coordinates;
    if options.store.is_some() && shows {
        let what = if how == How::SearchStore {
            "GEOSEARCHSTORE"
        } else {
            "STORE option in GEORADIUS"
        };
        return Err(Fail::Owned(format!(
            "ERR {what} is not compatible with WITHDIST, WITHHASH and WITHCOORD options"
        )));
    }
    if matches!(how, How::Search | How::SearchStore) {
        let command = lossy(args.at(0), 32);
        if !options.has_middle {
            return Err(Fail::Owned(format!(
                "ERR exactly one of FROMMEMBER or FROMLONLAT can be specified for {command}"
            )));
        }
        if options.size.is_none() {
            return Err(Fail::Owned(format!(
                "ERR exactly one of BYRADIUS and BYBOX can be specified for {command}"
            )));
        }
    }
    if options.any && options.count == 0 {
        return Err(Fail::Text("ERR the ANY argument requires COUNT argument"));
    }
    Ok(())
}

/// A place that was found.
#[derive(Debug)]
struct Found {
    member: Text,
    score: f64,
    point: Point,
    /// Metres.
    distance: f64,
}

/// Places inside a shape; with `limit`, not 0, the first that are met.
fn find(
    zset: &mut Ranked<'_>,
    middle: Point,
    shape: &Shape,
    limit: usize,
) -> Result<Vec<Found>, Error> {
    let mut all = Vec::new();
    for cell in shape.cells(middle) {
        let (from, to) = cell.scores();
        let ranks = zset.by_score(ScoreBound::Inclusive(from), ScoreBound::Exclusive(to))?;
        zset.each_while(ranks, false, |member, score| {
            if limit > 0 && all.len() >= limit {
                return false;
            }
            let point = area::point(score);
            if let Some(distance) = shape.holds(middle, point) {
                all.push(Found {
                    member: Text::new(member),
                    score,
                    point,
                    distance,
                });
            }
            true
        })?;
    }
    Ok(all)
}

/// Members that may be the one in the middle: of several the last is.
fn named<'a>(args: &Args<'a>, how: How, source: usize) -> Vec<&'a [u8]> {
    match how {
        How::Member(_) => args.get(2).into_iter().collect(),
        How::Radius(_) => Vec::new(),
        How::Search | How::SearchStore => {
            let words = args.from(source + 1);
            let pairs = words.iter().zip(words.iter().skip(1));
            let named = pairs.filter(|(word, _)| is(word, "FROMMEMBER"));
            named.map(|(_, member)| member).collect()
        }
    }
}

fn search(cx: &mut Exec<'_, '_>, args: &Args<'_>, how: How) -> Done {
    let source = if how == How::SearchStore { 2 } else { 1 };
    let (name, mut view, _) = cx.on(args.at(source));
    let zset = view.zset(&name, named(args, how, source))?;
    let options = options(args, how, zset)?;
    check(args, how, &options)?;
    let limit = if options.any { options.count } else { 0 };
    let mut found = match (options.middle, &options.size) {
        (Some(middle), Some(size)) => view
            .ranked(&name, NO_ELEMENTS, |zset| {
                find(zset, middle, &size.shape, limit)
            })?
            .unwrap_or_default(),
        _ => Vec::new(),
    };
    let metres = options.size.as_ref().map_or(1.0, |size| size.metres);
    // A count without an order means the nearest.
    let order = options
        .order
        .or((options.count > 0 && !options.any).then_some(Ordering::Less));
    if let Some(order) = order {
        found.sort_by(|a, b| {
            let by = a.distance.total_cmp(&b.distance);
            if order == Ordering::Less {
                by
            } else {
                by.reverse()
            }
        });
    }
    if options.count > 0 {
        found.truncate(options.count);
    }
    let Some(target) = options.store else {
        show(&mut cx.out, &options, &found, metres);
        return Ok(());
    };
    let pairs: Vec<_> = found
        .into_iter()
        .map(|place| {
            let score = if options.store_distance {
                place.distance / metres
            } else {
                place.score
            };
            (place.member, score)
        })
        .collect();
    ranges::store(cx, args.at(target), &pairs)
}

fn show(out: &mut Encoder<'_>, options: &Options, found: &[Found], metres: f64) {
    let extra = usize::from(options.with_distance)
        + usize::from(options.with_hash)
        + usize::from(options.with_coordinates);
    out.array(found.len());
    for place in found {
        if extra > 0 {
            out.array(1 + extra);
        }
        out.bulk(&place.member);
        if options.with_distance {
            distance(out, place.distance / metres);
        }
        if options.with_hash {
            out.integer(place.score as i64);
        }
        if options.with_coordinates {
            self::place(out, place.point);
        }
    }
}

fn geosearch(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::Search)
}

fn geosearchstore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::SearchStore)
}

fn georadius(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::Radius(true))
}

fn georadiusbymember(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::Member(true))
}

fn georadius_ro(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::Radius(false))
}

fn georadiusbymember_ro(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    search(cx, args, How::Member(false))
}
