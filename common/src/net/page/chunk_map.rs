//! Who holds which part, as a picture: one bar a holder, from the first byte to the last.

use maud::{Markup, html};

use crate::protocol::WHOLE;

/// A bar of equal stretches, as in [`crate::protocol::Parts`]. `label` says in words what it shows.
pub fn chunk_map(parts: &[u8], label: &str) -> Markup {
    let n = parts.len().max(1);
    html! {
        svg.map role="img" aria-label=(label) viewBox=(format!("0 0 {n} 1")) preserveAspectRatio="none" {
            @for (at, n, part) in stretches(parts) {
                rect x=(at) y="0" width=(n) height="1"
                    fill-opacity=(format!("{:.2}", 0.25 + 0.75 * f64::from(part.min(WHOLE)) / f64::from(WHOLE))) {}
            }
        }
    }
}

/// Neighbours that are held alike: where, how many, how much. What is not held at all has no place in the picture.
fn stretches(parts: &[u8]) -> impl Iterator<Item = (usize, usize, u8)> {
    let mut at = 0;
    parts.chunk_by(|a, b| a == b).filter_map(move |alike| {
        let from = at;
        at += alike.len();
        (alike[0] > 0).then_some((from, alike.len(), alike[0]))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_alike_are_one() {
        let check = |parts: &[u8], want: &[(usize, usize, u8)]| {
            assert_eq!(stretches(parts).collect::<Vec<_>>(), want, "{parts:?}");
        };
        check(&[], &[]);
        check(&[0, 0], &[]);
        check(&[15, 15, 0, 3], &[(0, 2, 15), (3, 1, 3)]);
        check(&[0, 15, 15, 15], &[(1, 3, 15)]);
    }
}
