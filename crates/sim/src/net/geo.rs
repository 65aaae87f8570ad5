//! How long a packet takes, without a table of pairs.
//!
//! Every host has a place on the globe near one of the world's large cities, and an access line.
//! One way from host to host is
//!
//! ```text
//! great circle / c · INFLATION + access of both + jitter
//! ```
//!
//! - *Inflation.* Light in fibre needs 1.47 times as long as in vacuum, and cables do not follow
//!   great circles: between the shores of the Atlantic the round trip is 1.9 times that of light
//!   in vacuum, elsewhere up to three times (Singla et al., *The Internet at the Speed of Light*,
//!   `HotNets` 2014).
//! - *Access.* Log-normal with a median of 5 ms one way: the last mile of cable and DSL lines adds
//!   5 to 20 ms to a round trip (Sundaresan et al., *Broadband Internet Performance*, SIGCOMM
//!   2011), wireless ones more, which is the tail.
//! - *Jitter.* Log-normal with a median of 1 ms for each packet.
//! - *Where people are.* Shares in the manner of file-sharing networks' users, of whom most are in
//!   Europe. They are an assumption; what matters is the distribution that comes
//!   out: a median round trip of about 85 ms, a tenth below 30 and a tenth above 155.

use core::time::Duration;

use crate::draw::Draw;

/// Mean radius of the earth.
const EARTH_KM: f64 = 6371.0;

/// Light in vacuum, in kilometres a millisecond.
const LIGHT_KM_MS: f64 = 299.8;

/// Time of a packet by time of light on the great circle.
const INFLATION: f64 = 1.9;

/// Median delay of an access line, one way, and the deviation of its logarithm.
const ACCESS_MS: (f64, f64) = (5.0, 0.8);

/// Median jitter of a packet, and the deviation of its logarithm.
const JITTER_MS: (f64, f64) = (1.0, 1.0);

/// Deviation of a host from its city, in degrees.
const SPREAD_DEG: f64 = 3.0;

/// Latitude, longitude, and weight.
const CITIES: [(f64, f64, u32); 24] = [
    (51.5, -0.1, 12),  // London
    (48.9, 2.4, 12),   // Paris
    (52.5, 13.4, 13),  // Berlin
    (50.1, 8.7, 11),   // Frankfurt
    (45.5, 9.2, 9),    // Milan
    (40.4, -3.7, 8),   // Madrid
    (52.2, 21.0, 9),   // Warsaw
    (59.3, 18.1, 7),   // Stockholm
    (55.8, 37.6, 4),   // Moscow
    (41.0, 29.0, 2),   // Istanbul
    (40.7, -74.0, 8),  // New York
    (41.9, -87.6, 5),  // Chicago
    (33.7, -84.4, 3),  // Atlanta
    (32.8, -96.8, 3),  // Dallas
    (37.4, -122.0, 4), // San Francisco
    (43.7, -79.4, 2),  // Toronto
    (-23.5, -46.6, 3), // São Paulo
    (35.7, 139.7, 3),  // Tokyo
    (37.6, 127.0, 2),  // Seoul
    (31.2, 121.5, 2),  // Shanghai
    (1.3, 103.8, 2),   // Singapore
    (19.1, 72.9, 2),   // Mumbai
    (-33.9, 151.2, 1), // Sydney
    (6.5, 3.4, 1),     // Lagos
];

/// Where a host is: a point of the unit sphere, and its access line.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    at: [f32; 3],
    access_ms: f32,
}

impl Place {
    /// Draws a place.
    ///
    /// # Panics
    ///
    /// Never: one of the cities is drawn.
    #[expect(clippy::cast_possible_truncation, reason = "24 bits of a place are metres")]
    pub fn draw(draw: &mut Draw) -> Self {
        let total: u32 = CITIES.iter().map(|city| city.2).sum();
        let mut left = draw.below(total as usize);
        let city = CITIES.iter().find(|city| match left.checked_sub(city.2 as usize) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        });
        let (lat, lon, _) = *city.expect("the draw is below the sum");
        let lat = (lat + SPREAD_DEG * draw.normal()).to_radians();
        let lon = (lon + SPREAD_DEG * draw.normal()).to_radians();
        let at = [lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()].map(|x| x as f32);
        Self { at, access_ms: draw.log_normal(ACCESS_MS.0, ACCESS_MS.1) as f32 }
    }

    /// One way to another place, without jitter.
    #[must_use]
    pub fn one_way(&self, other: &Self) -> Duration {
        let square: f32 = self.at.iter().zip(other.at).map(|(a, b)| (a - b) * (a - b)).sum();
        let angle = 2.0 * (f64::from(square).sqrt() / 2.0).min(1.0).asin();
        let wire_ms = angle * EARTH_KM / LIGHT_KM_MS * INFLATION;
        let access_ms = f64::from(self.access_ms + other.access_ms);
        Duration::from_secs_f64((wire_ms + access_ms) / 1000.0)
    }
}

/// What one packet takes beyond the least.
pub fn jitter(draw: &mut Draw) -> Duration {
    Duration::from_secs_f64(draw.log_normal(JITTER_MS.0, JITTER_MS.1) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_are_like_those_of_the_internet() {
        let mut draw = Draw::new(1, 1);
        let places: Vec<_> = (0..2000).map(|_| Place::draw(&mut draw)).collect();
        let mut rtts: Vec<_> = places.chunks(2).map(|p| p[0].one_way(&p[1]) * 2).collect();
        rtts.sort();
        let [tenth, median, ninth] = [1, 5, 9].map(|n| rtts[n * rtts.len() / 10].as_millis());
        println!("round trips: {tenth} {median} {ninth} ms");
        assert!((20..45).contains(&tenth), "{tenth}");
        assert!((70..95).contains(&median), "{median}");
        assert!((130..180).contains(&ninth), "{ninth}");
    }

    #[test]
    fn distance_is_symmetric() {
        let mut draw = Draw::new(1, 1);
        let (a, b) = (Place::draw(&mut draw), Place::draw(&mut draw));
        assert_eq!(a.one_way(&b), b.one_way(&a));
        assert!(a.one_way(&a) < a.one_way(&b) + Duration::from_millis(50));
    }
}
