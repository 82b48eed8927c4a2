//! Places on earth as numbers of 52 bits, distances, and which ranges of such numbers a circle or box can touch.
//!
//! A number interleaves 26 bits of latitude (even places) and 26 of longitude (odd ones); its first bits name a cell, which holds
//! all places whose numbers begin with them. So what lies in a cell is a range of scores of a sorted set.

/// Of the sphere that Redis takes the earth for, in metres.
const EARTH_RADIUS: f64 = 6_372_797.560_856;
/// Half of the equator in the Mercator projection, in metres.
const MERCATOR_MAX: f64 = 20_037_726.37;
pub(super) const LATITUDE_MAX: f64 = 85.051_128_78;
pub(super) const LONGITUDE_MAX: f64 = 180.0;
/// Bits of each of the two numbers.
pub(super) const STEP_MAX: u32 = 26;

/// A place in degrees.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    pub(super) longitude: f64,
    pub(super) latitude: f64,
}

/// What is searched, in metres.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    Circle { radius: f64 },
    Box { width: f64, height: f64 },
    Polygon(Polygon),
}

/// Corners, of which the last is joined to the first.
#[derive(Debug, Clone)]
pub(super) struct Polygon {
    corners: Vec<Point>,
    /// Longitudes and latitudes between which they lie.
    bounds: (Span, Span),
}

impl Polygon {
    pub(super) fn new(corners: Vec<Point>) -> Self {
        let bounds = around(&corners);
        Self { corners, bounds }
    }

    /// Most places are outside of the bounds, so that not all corners need be looked at.
    fn surrounds(&self, place: Point) -> bool {
        let (longitudes, latitudes) = self.bounds;
        longitudes.holds(place.longitude)
            && latitudes.holds(place.latitude)
            && surrounds(&self.corners, place)
    }
}

/// All places whose numbers begin with these `2 * step` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cell {
    bits: u64,
    step: u32,
}

/// Degrees between two bounds.
#[derive(Debug, Clone, Copy)]
struct Span {
    min: f64,
    max: f64,
}

impl Span {
    const fn of(max: f64) -> Self {
        Self { min: -max, max }
    }

    fn holds(self, value: f64) -> bool {
        value >= self.min && value <= self.max
    }

    /// In which of `1 << step` equal parts a value lies.
    fn part(self, value: f64, step: u32) -> u32 {
        let share = (value - self.min) / (self.max - self.min);
        (share * (1u64 << step) as f64) as u32
    }

    fn at(self, part: u32, step: u32) -> Self {
        let width = self.max - self.min;
        let bound = |part: f64| self.min + (part / (1u64 << step) as f64) * width;
        Self {
            min: bound(f64::from(part)),
            max: bound(f64::from(part) + 1.0),
        }
    }
}

const LATITUDES: Span = Span::of(LATITUDE_MAX);
const LONGITUDES: Span = Span::of(LONGITUDE_MAX);

/// The bits of `even` in even places, those of `odd` in odd ones.
fn interleave(even: u32, odd: u32) -> u64 {
    let spread = |value: u32| {
        let mut bits = u64::from(value);
        for (shift, mask) in [
            (16, 0x0000_ffff_0000_ffff),
            (8, 0x00ff_00ff_00ff_00ff),
            (4, 0x0f0f_0f0f_0f0f_0f0f),
            (2, 0x3333_3333_3333_3333),
            (1, 0x5555_5555_5555_5555),
        ] {
            bits = (bits | bits << shift) & mask;
        }
        bits
    };
    spread(even) | spread(odd) << 1
}

/// The inverse of [`interleave`].
fn separate(bits: u64) -> (u32, u32) {
    let gather = |bits: u64| {
        let mut bits = bits & 0x5555_5555_5555_5555;
        for (shift, mask) in [
            (1, 0x3333_3333_3333_3333),
            (2, 0x0f0f_0f0f_0f0f_0f0f),
            (4, 0x00ff_00ff_00ff_00ff),
            (8, 0x0000_ffff_0000_ffff),
            (16, 0x0000_0000_ffff_ffff),
        ] {
            bits = (bits | bits >> shift) & mask;
        }
        bits as u32
    };
    (gather(bits), gather(bits >> 1))
}

const EVEN: u64 = 0x5555_5555_5555_5555;
const ODD: u64 = 0xaaaa_aaaa_aaaa_aaaa;

impl Cell {
    fn of(point: Point, step: u32) -> Self {
        let bits = interleave(
            LATITUDES.part(point.latitude, step),
            LONGITUDES.part(point.longitude, step),
        );
        Self { bits, step }
    }

    /// Longitudes and latitudes.
    fn spans(self) -> (Span, Span) {
        let (latitude, longitude) = separate(self.bits);
        (
            LONGITUDES.at(longitude, self.step),
            LATITUDES.at(latitude, self.step),
        )
    }

    /// The cell so many cells to the east and north, which may be on the other side of the map.
    fn moved(self, east: i32, north: i32) -> Self {
        let low = |bits: u64| bits >> (64 - self.step * 2);
        let step = |bits: u64, own: u64, other: u64, by: i32| {
            let (bits, gap) = (bits & own, low(other));
            let moved = match by {
                // What lies on the very edge of the map is in a cell outside of it, as in Redis.
                0 => return bits,
                1.. => bits.wrapping_add(gap.wrapping_add(1)),
                _ => (bits | gap).wrapping_sub(gap.wrapping_add(1)),
            };
            moved & low(own)
        };
        Self {
            bits: step(self.bits, ODD, EVEN, east) | step(self.bits, EVEN, ODD, north),
            step: self.step,
        }
    }

    /// Scores of its places: from, and up to but without.
    pub(super) fn scores(self) -> (f64, f64) {
        let shift = 52 - self.step * 2;
        (
            (self.bits << shift) as f64,
            ((self.bits + 1) << shift) as f64,
        )
    }
}

/// The score of a place.
pub(super) fn score(point: Point) -> f64 {
    Cell::of(point, STEP_MAX).bits as f64
}

/// A score that GEOADD did not make comes to what it comes to in Redis, whose conversion is the processor's: negative ones wrap,
/// what is 2^64 and more is none.
fn bits(score: f64) -> u64 {
    if score < 0.0 {
        score as i64 as u64
    } else if score < 18_446_744_073_709_551_616.0 {
        score as u64
    } else {
        0
    }
}

/// The middle of what a score stands for.
pub(super) fn point(score: f64) -> Point {
    let cell = Cell {
        bits: bits(score),
        step: STEP_MAX,
    };
    let (longitudes, latitudes) = cell.spans();
    let middle = |span: Span, max: f64| ((span.min + span.max) / 2.0).clamp(-max, max);
    Point {
        longitude: middle(longitudes, LONGITUDE_MAX),
        latitude: middle(latitudes, LATITUDE_MAX),
    }
}

/// The eleven letters of the geohash that maps use, whose latitudes go from pole to pole.
pub(super) fn letters(point: Point) -> [u8; 11] {
    const ALPHABET: &[u8; 32] = b"0123456789bcdefghjkmnpqrstuvwxyz";
    let bits = interleave(
        Span::of(90.0).part(point.latitude, STEP_MAX),
        LONGITUDES.part(point.longitude, STEP_MAX),
    );
    std::array::from_fn(|place| {
        // 52 bits are ten letters and two bits, in place of which Redis says 0.
        let letter = match 52usize.checked_sub((place + 1) * 5) {
            Some(shift) => bits >> shift & 31,
            None => 0,
        };
        ALPHABET.get(letter as usize).copied().unwrap_or(b'0')
    })
}

fn latitude_distance(a: f64, b: f64) -> f64 {
    EARTH_RADIUS * (b.to_radians_exact() - a.to_radians_exact()).abs()
}

trait Radians {
    fn to_radians_exact(self) -> f64;
    fn to_degrees_exact(self) -> f64;
}

/// As C programs do it; the last bit decides a cell.
impl Radians for f64 {
    fn to_radians_exact(self) -> f64 {
        self * (std::f64::consts::PI / 180.0)
    }

    fn to_degrees_exact(self) -> f64 {
        self / (std::f64::consts::PI / 180.0)
    }
}

/// Metres between two places (haversine).
pub(super) fn distance(a: Point, b: Point) -> f64 {
    let (a_longitude, b_longitude) = (
        a.longitude.to_radians_exact(),
        b.longitude.to_radians_exact(),
    );
    let v = ((b_longitude - a_longitude) / 2.0).sin();
    if v == 0.0 {
        return latitude_distance(a.latitude, b.latitude);
    }
    let (a_latitude, b_latitude) = (a.latitude.to_radians_exact(), b.latitude.to_radians_exact());
    let u = ((b_latitude - a_latitude) / 2.0).sin();
    let h = u * u + a_latitude.cos() * b_latitude.cos() * v * v;
    2.0 * EARTH_RADIUS * h.sqrt().asin()
}

/// Longitudes and latitudes between which places lie.
fn around(places: &[Point]) -> (Span, Span) {
    let span = |max: f64, of: fn(&Point) -> f64| {
        let none = Span {
            min: max,
            max: -max,
        };
        places.iter().map(of).fold(none, |span, value| Span {
            min: span.min.min(value),
            max: span.max.max(value),
        })
    };
    (
        span(LONGITUDE_MAX, |place| place.longitude),
        span(LATITUDE_MAX, |place| place.latitude),
    )
}

/// Does a line from the place to the east leave the polygon an odd number of times?
fn surrounds(corners: &[Point], place: Point) -> bool {
    let mut inside = false;
    let mut before = corners.last();
    for corner in corners {
        if let Some(before) = before
            && (corner.latitude > place.latitude) != (before.latitude > place.latitude)
        {
            let share = (place.latitude - corner.latitude) / (before.latitude - corner.latitude);
            let crossing = (before.longitude - corner.longitude) * share + corner.longitude;
            inside ^= place.longitude < crossing;
        }
        before = Some(corner);
    }
    inside
}

/// The middle of a polygon: of its corners in space, as seen from the middle of the earth.
pub(super) fn centre(corners: &[Point]) -> Point {
    let count = corners.len() as f64;
    let (mut x, mut y, mut z) = (0.0, 0.0, 0.0);
    for corner in corners {
        let (longitude, latitude) = (
            corner.longitude.to_radians_exact(),
            corner.latitude.to_radians_exact(),
        );
        x += EARTH_RADIUS * latitude.cos() * longitude.cos();
        y += EARTH_RADIUS * latitude.cos() * longitude.sin();
        z += EARTH_RADIUS * latitude.sin();
    }
    let (x, y, z): (f64, f64, f64) = (x / count, y / count, z / count);
    Point {
        longitude: y.atan2(x).to_degrees_exact(),
        latitude: z.atan2((x * x + y * y).sqrt()).to_degrees_exact(),
    }
}

impl Shape {
    /// How far a place is from the middle, if it lies inside.
    pub(super) fn holds(&self, middle: Point, place: Point) -> Option<f64> {
        match *self {
            Self::Polygon(ref polygon) => polygon.surrounds(place).then(|| distance(middle, place)),
            Self::Circle { radius } => {
                let distance = distance(middle, place);
                (distance <= radius).then_some(distance)
            }
            Self::Box { width, height } => {
                if latitude_distance(place.latitude, middle.latitude) > height / 2.0 {
                    return None;
                }
                let across = Point {
                    latitude: place.latitude,
                    ..middle
                };
                if distance(place, across) > width / 2.0 {
                    return None;
                }
                Some(distance(middle, place))
            }
        }
    }

    /// Metres from the middle to the farthest place.
    fn reach(&self, middle: Point) -> f64 {
        match *self {
            Self::Polygon(ref polygon) => {
                let (longitudes, latitudes) = polygon.bounds;
                let mut reach = 0.0_f64;
                for longitude in [longitudes.min, longitudes.max] {
                    for latitude in [latitudes.min, latitudes.max] {
                        let corner = Point {
                            longitude,
                            latitude,
                        };
                        reach = reach.max(distance(middle, corner));
                    }
                }
                reach
            }
            Self::Circle { radius } => radius,
            Self::Box { width, height } => {
                ((width / 2.0) * (width / 2.0) + (height / 2.0) * (height / 2.0)).sqrt()
            }
        }
    }

    /// Longitudes and latitudes between which it lies.
    fn bounds(&self, middle: Point) -> (Span, Span) {
        let (width, height) = match *self {
            Self::Polygon(ref polygon) => return polygon.bounds,
            Self::Circle { radius } => (radius, radius),
            Self::Box { width, height } => (width / 2.0, height / 2.0),
        };
        let Point {
            longitude,
            latitude,
        } = middle;
        let north = (height / EARTH_RADIUS).to_degrees_exact();
        // Meridians lie closer towards the nearer pole.
        let nearer = if latitude < 0.0 {
            latitude - north
        } else {
            latitude + north
        };
        let east = (width / EARTH_RADIUS / nearer.to_radians_exact().cos()).to_degrees_exact();
        let around = |at: f64, by: f64| Span {
            min: at - by,
            max: at + by,
        };
        (around(longitude, east), around(latitude, north))
    }

    /// The cells that it may touch, in the order in which Redis looks at them: at most nine.
    pub(super) fn cells(&self, middle: Point) -> Vec<Cell> {
        let (longitudes, latitudes) = self.bounds(middle);
        let mut step = step_for(self.reach(middle), middle.latitude);
        let mut cell = Cell::of(middle, step);
        let short = {
            let north = cell.moved(0, 1).spans().1;
            let south = cell.moved(0, -1).spans().1;
            let east = cell.moved(1, 0).spans().0;
            let west = cell.moved(-1, 0).spans().0;
            north.max < latitudes.max
                || south.min > latitudes.min
                || east.max < longitudes.max
                || west.min > longitudes.min
        };
        if short && step > 1 {
            step -= 1;
            cell = Cell::of(middle, step);
        }
        let (across, along) = cell.spans();
        let mut cells: Vec<Cell> = Vec::with_capacity(9);
        for (east, north) in [
            (0, 0),
            (0, 1),
            (0, -1),
            (1, 0),
            (-1, 0),
            (1, 1),
            (-1, 1),
            (1, -1),
            (-1, -1),
        ] {
            let useless = step >= 2
                && ((north < 0 && along.min < latitudes.min)
                    || (north > 0 && along.max > latitudes.max)
                    || (east < 0 && across.min < longitudes.min)
                    || (east > 0 && across.max > longitudes.max));
            let next = cell.moved(east, north);
            // Very large cells are their own neighbours. What equals the first one Redis looks at again.
            let again = cells.len() > 1 && cells.last() == Some(&next);
            if !useless && !again {
                cells.push(next);
            }
        }
        cells
    }
}

/// How many bits of each number a cell has that is about as wide as a search.
fn step_for(mut metres: f64, latitude: f64) -> u32 {
    if metres == 0.0 {
        return STEP_MAX;
    }
    let mut step = 1i32;
    while metres < MERCATOR_MAX {
        metres *= 2.0;
        step += 1;
    }
    step -= 2;
    if latitude.abs() > 66.0 {
        step -= 1;
    }
    if latitude.abs() > 80.0 {
        step -= 1;
    }
    u32::try_from(step).unwrap_or(1).clamp(1, STEP_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PALERMO: Point = Point {
        longitude: 13.361389,
        latitude: 38.115556,
    };
    const CATANIA: Point = Point {
        longitude: 15.087269,
        latitude: 37.502669,
    };

    #[test]
    fn known_places() {
        assert_eq!(score(PALERMO), 3_479_099_956_230_698.0);
        assert_eq!(score(CATANIA), 3_479_447_370_796_909.0);
        let (a, b) = (point(score(PALERMO)), point(score(CATANIA)));
        assert_eq!(format!("{:.4}", distance(a, b)), "166274.1516");
        assert_eq!(&letters(a), b"sqc8b49rny0");
        assert_eq!(&letters(b), b"sqdtr74hyu0");
    }

    proptest! {
        #[test]
        fn nothing_inside_is_missed(
            longitude in -179.0..179.0f64,
            latitude in -85.0..85.0f64,
            east in -1.0..1.0f64,
            north in -1.0..1.0f64,
            size in 0.0..7.0f64,
            boxed in any::<bool>(),
        ) {
            let middle = Point { longitude, latitude };
            let metres = 10f64.powf(size).min(3e6);
            let shape = if boxed { Shape::Box { width: metres, height: metres / 2.0 } } else { Shape::Circle { radius: metres } };
            let degrees = metres / 111_000.0;
            let place = Point {
                longitude: (longitude + east * degrees).clamp(-180.0, 180.0),
                latitude: (latitude + north * degrees).clamp(-85.05, 85.05),
            };
            let place = point(score(place));
            // Redis gives up at the poles and at the date line, as we do.
            let far = (latitude.abs() + degrees) > 75.0 || (longitude.abs() + degrees * 4.0) > 180.0;
            if shape.holds(middle, place).is_some() && !far {
                let found = score(place);
                let cells = shape.cells(middle);
                let inside = |cell: &Cell| { let (from, to) = cell.scores(); (from..to).contains(&found) };
                prop_assert!(cells.iter().any(inside), "{cells:?}");
            }
        }

        #[test]
        fn bounds_leave_out_nothing_that_a_polygon_surrounds(
            corners in prop::collection::vec((-9.0..9.0f64, -9.0..9.0f64), 3..9),
            longitude in -10.0..10.0f64,
            latitude in -10.0..10.0f64,
        ) {
            let point = |(longitude, latitude)| Point { longitude, latitude };
            let corners: Vec<_> = corners.into_iter().map(point).collect();
            let place = Point { longitude, latitude };
            let expected = surrounds(&corners, place);
            prop_assert_eq!(Polygon::new(corners).surrounds(place), expected);
        }

        #[test]
        fn interleaving_has_an_inverse(even in any::<u32>(), odd in any::<u32>()) {
            prop_assert_eq!(separate(interleave(even, odd)), (even, odd));
        }
    }
}
