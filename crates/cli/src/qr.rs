//! Invites as QR codes (ISO/IEC 18004) of block characters, two modules to a character.
//!
//! An invite is read in any case, so the code holds it in upper case: the alphanumeric mode takes
//! 5.5 bits a character, where the byte mode takes 8, and the code stays small enough for a
//! terminal.

use anyhow::{Context, Result};
use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Black on white whatever the terminal's colours are; many readers fail on the inverse.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const RESET: &str = "\x1b[0m";

/// Draws `invite`, a line of text for two rows of modules, with the quiet zone that readers need.
///
/// With `colours` each line sets and resets the terminal's; without, the lines suit a dark
/// background.
pub(crate) fn draw(invite: &str, colours: bool) -> Result<String> {
    let code = QrCode::with_error_correction_level(invite.to_ascii_uppercase(), EcLevel::L)
        .context("the invite does not fit a QR code")?;
    let mut renderer = code.render::<Dense1x2>();
    if !colours {
        renderer.dark_color(Dense1x2::Light).light_color(Dense1x2::Dark);
    }
    let picture = renderer.build();
    let line = |line: &str| {
        if colours { format!("{BLACK_ON_WHITE}{line}{RESET}\n") } else { format!("{line}\n") }
    };
    Ok(picture.lines().map(line).collect())
}

/// Characters in the widest line of `picture`.
pub(crate) fn width(picture: &str) -> usize {
    let plain = picture.replace(BLACK_ON_WHITE, "").replace(RESET, "");
    plain.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_invite_fits() {
        let longest = "baran1".to_owned() + &"a".repeat(1018);
        for colours in [false, true] {
            let picture = draw(&longest, colours).unwrap();
            // Version 20 at most: 97 modules and the quiet zone of 4 on either side.
            assert!(width(&picture) <= 105, "{}", width(&picture));
            assert_eq!(picture.contains('\x1b'), colours);
        }
    }

    #[test]
    fn a_bare_invite_fits_half_a_terminal() {
        let bare = "baran1aeakcacyedlvvgabqkyqvn6vjp7nhslea45a5yls6pnkmizfv4bbu2hxa5irupozp76a";
        assert!(width(&draw(bare, false).unwrap()) <= 40);
    }
}
