//! What an owner lends of a node to others: whether, when, and how much at most.
//!
//! The limits hold for all that is served together: relayed frames, answers of the index,
//! signalling. They are kept in the data directory as text, one setting a line, for the owner to
//! read and change while no node runs.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Hours of the day, by the machine's clock: from the first up to the second, over midnight if that
/// is the smaller one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hours {
    from: u8,
    to: u8,
}

impl Hours {
    /// Whether an hour (0 to 23) is one of them.
    #[must_use]
    pub fn contains(self, hour: u8) -> bool {
        if self.from < self.to {
            (self.from..self.to).contains(&hour)
        } else {
            hour >= self.from || hour < self.to
        }
    }
}

/// Why a text is no [`Hours`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("hours are two different numbers from 0 to 24, such as 22-6")]
pub struct HoursError;

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, HoursError> {
        let hour = |text: &str| text.parse().ok().filter(|hour| *hour <= 24);
        let (from, to) = text.split_once('-').ok_or(HoursError)?;
        match (hour(from), hour(to)) {
            (Some(from), Some(to)) if from != to && from != 24 => Ok(Self { from, to }),
            _ => Err(HoursError),
        }
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.from, self.to)
    }
}

/// Limits that the owner sets on what the node serves others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeLimits {
    /// Whether to serve at all. If so, still never on battery or on a metered way out.
    pub is_on: bool,
    /// Bytes a second for everybody together; 0 is off.
    pub rate_bytes_per_s: u64,
    /// Bytes in 24 hours; 0 is off.
    pub bytes_per_day: u64,
    /// When to serve; `None` for always.
    pub hours: Option<Hours>,
    /// Peers that may be reached through this node at a time.
    pub reservations: usize,
}

impl Default for ServeLimits {
    /// 10 MB/s, 20 GB a day: a home line's spare capacity; 512 peers, twice what a seat of a region
    /// of 1,024 nodes has.
    fn default() -> Self {
        Self {
            is_on: true,
            rate_bytes_per_s: 10_000_000,
            bytes_per_day: 20_000_000_000,
            hours: None,
            reservations: 512,
        }
    }
}

/// A line of settings that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no setting of what is served")]
pub struct SettingError(String);

impl ServeLimits {
    /// Nothing is served.
    #[must_use]
    pub fn off() -> Self {
        Self { is_on: false, ..Self::default() }
    }

    /// Whether anything may ever be served.
    #[must_use]
    pub fn allow_anything(&self) -> bool {
        self.is_on && self.rate_bytes_per_s > 0 && self.bytes_per_day > 0
    }

    /// As text, one setting a line.
    pub(crate) fn encode(&self) -> String {
        let Self { is_on, rate_bytes_per_s, bytes_per_day, hours, reservations } = self;
        let serve = if *is_on { "auto" } else { "off" };
        let hours = hours.map_or_else(|| "always".to_owned(), |hours| hours.to_string());
        format!(
            "serve {serve}\nrate {rate_bytes_per_s}\nbytes-per-day {bytes_per_day}\n\
             hours {hours}\nreservations {reservations}\n"
        )
    }

    /// Reads what [`ServeLimits::encode`] wrote, or the owner. What is not said is as by default.
    pub(crate) fn decode(text: &str) -> Result<Self, SettingError> {
        let mut limits = Self::default();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let wrong = || SettingError(line.to_owned());
            let (name, value) = line.split_once(' ').ok_or_else(wrong)?;
            let value = value.trim();
            match (name, value) {
                ("serve", "auto") => limits.is_on = true,
                ("serve", "off") => limits.is_on = false,
                ("hours", "always") => limits.hours = None,
                ("hours", _) => limits.hours = Some(value.parse().map_err(|_| wrong())?),
                ("rate", _) => limits.rate_bytes_per_s = value.parse().map_err(|_| wrong())?,
                ("bytes-per-day", _) => {
                    limits.bytes_per_day = value.parse().map_err(|_| wrong())?;
                }
                ("reservations", _) => limits.reservations = value.parse().map_err(|_| wrong())?,
                _ => return Err(wrong()),
            }
        }
        Ok(limits)
    }
}

/// Why a node serves nobody at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// The owner lends nothing, or the node only passes by.
    Off,
    /// It is not one of the owner's hours.
    Hours,
    /// The machine runs on battery.
    Battery,
    /// The way out is metered.
    Metered,
    /// The bytes of the day are used up.
    DayUsed,
}

impl Pause {
    /// The name in the output of commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Hours => "hours",
            Self::Battery => "battery",
            Self::Metered => "metered",
            Self::DayUsed => "day-used",
        }
    }
}

/// What a node serves others, of what its owner allows.
#[derive(Debug, Clone)]
pub struct ServeStatus {
    /// The owner's limits.
    pub limits: ServeLimits,
    /// Why it serves nobody; `None` if it serves.
    pub pause: Option<Pause>,
    /// Bytes served of those that the owner allows a day.
    pub bytes_today: u64,
    /// Time until that day ends.
    pub day_left: Duration,
    /// Bytes of answers since its start, of the index and of signalling; relayed ones are counted
    /// by themselves.
    pub answer_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_may_pass_midnight() {
        for (text, within, without) in [
            ("22-6", &[22, 23, 0, 5][..], &[6, 12, 21][..]),
            ("9-17", &[9, 16], &[8, 17, 0]),
            ("0-24", &[0, 23], &[]),
            ("6-0", &[6, 23], &[0, 5]),
        ] {
            let hours: Hours = text.parse().unwrap();
            assert_eq!(hours.to_string(), text);
            assert!(within.iter().all(|hour| hours.contains(*hour)), "{text}");
            assert!(!without.iter().any(|hour| hours.contains(*hour)), "{text}");
        }
        for text in ["", "6", "6-6", "24-6", "22-25", "22-", "-6", "22:30-6", "a-b"] {
            assert_eq!(text.parse::<Hours>(), Err(HoursError), "{text}");
        }
    }

    #[test]
    fn settings_come_back_from_their_text() {
        for limits in [
            ServeLimits::default(),
            ServeLimits {
                is_on: false,
                rate_bytes_per_s: 1,
                bytes_per_day: 2,
                hours: Some("22-6".parse().unwrap()),
                reservations: 3,
            },
        ] {
            assert_eq!(ServeLimits::decode(&limits.encode()), Ok(limits));
        }
        let by_hand = ServeLimits::decode("\n rate  5\nserve off\n").unwrap();
        assert_eq!(by_hand, ServeLimits { rate_bytes_per_s: 5, ..ServeLimits::off() });
        for text in ["serve", "serve maybe", "rate much", "hours 9", "speed 9"] {
            assert_eq!(ServeLimits::decode(text), Err(SettingError(text.to_owned())));
        }
    }
}
