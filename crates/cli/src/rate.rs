//! Amounts of bytes as people write them: `500K`, `1.5G`, `off`.

/// Largest amount, 1 PB: beyond what any limit is good for, and far from overflowing in sums.
const MAX: f64 = 1e15;

/// Reads bytes, or bytes a second: a number, then `K`, `M`, `G` or `T` (powers of 1,000) or `Ki`,
/// `Mi`, `Gi` or `Ti` (powers of 1,024), in any case; a `B` and a `/s` may follow. `off` is 0.
///
/// # Errors
///
/// If it is something else, negative, or more than 1 PB.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!("{text:?} is no amount of bytes: write 10M, 1.5G, 512Ki, a plain number, or off")
    };
    let lower = text.trim().to_ascii_lowercase();
    if lower == "off" {
        return Ok(0);
    }
    let rest = lower.strip_suffix("/s").unwrap_or(&lower);
    let rest = rest.strip_suffix('b').unwrap_or(rest);
    let (rest, base) =
        rest.strip_suffix('i').map_or((rest, 1_000_f64), |without| (without, 1_024_f64));
    let power = ["k", "m", "g", "t"].iter().position(|unit| rest.ends_with(unit));
    let (number, factor) = match power {
        Some(power) => (&rest[..rest.len() - 1], base.powi(i32::try_from(power + 1).unwrap_or(0))),
        None if base > 1_000.0 => return Err(wrong()),
        None => (rest, 1.0),
    };
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    if !number.starts_with(|c: char| c.is_ascii_digit()) || !number.chars().all(is_number) {
        return Err(wrong());
    }
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if bytes > MAX {
        return Err(format!("{text:?} is more than 1,000T"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "not negative and at most 1e15")]
    #[expect(clippy::cast_sign_loss, reason = "the number begins with a digit")]
    Ok(bytes.round() as u64)
}

/// Writes an amount of bytes with three or four digits.
pub(crate) fn human(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with four digits")]
    let mut amount = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if amount < 1_000.0 {
            let digits = usize::from(unit != "B");
            return format!("{amount:.digits$} {unit}");
        }
        amount /= 1_000.0;
    }
    format!("{amount:.1} TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("off", 0),
            ("OFF", 0),
            ("17", 17),
            ("500K", 500_000),
            ("10M", 10_000_000),
            ("10MB/s", 10_000_000),
            ("1.5g", 1_500_000_000),
            ("2T", 2_000_000_000_000),
            ("512Ki", 524_288),
            ("1MiB", 1_048_576),
            (" 3b ", 3),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "", "x", "-1", "+1", "1e3", "M", "1i", "inf", "nan", "1.2.3", ".5", "1 M", "9999T",
            "1µ",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_are_written_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (20_000_000, "20.0 MB"),
            (1_500_000_000, "1.5 GB"),
            (u64::MAX, "18446744.1 TB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
