//! Who sends to whom, as a picture: peers on a circle, what moves as curves between them, as wide as it is fast.
//!
//! The same stands below it in words. Pure: positions depend on nothing but the peers and their order.

use std::collections::BTreeMap;
use std::f64::consts::TAU;

use maud::{Markup, html};
use potluck_common::PeerId;
use potluck_common::net::page::name;
use potluck_common::protocol::PeerInfo;
use potluck_common::units::rate;

use super::page_of;
use crate::lookup::Moving;

/// Peers on the circle; more could not be told apart.
const MAX_NODES: usize = 16;
/// Flows named below it.
const MAX_LISTED: usize = 8;
/// Characters of a name beside its place.
const MAX_LABEL: usize = 12;
const CENTRE: (f64, f64) = (200.0, 160.0);
const RADIUS: (f64, f64) = (118.0, 112.0);

/// The picture. Those who take part come first onto the circle, then others of `peers`.
pub(super) fn picture(peers: &[PeerInfo], moving: &[Moving]) -> Markup {
    let nodes = nodes(peers, moving);
    let at: BTreeMap<PeerId, usize> = nodes.iter().enumerate().map(|(at, (id, _))| (*id, at)).collect();
    let n = nodes.len();
    let fastest = moving.iter().map(|flow| flow.rate).max().unwrap_or(1).max(1);
    let label = match moving {
        [] => "Nothing is moving between peers.".to_owned(),
        [_] => "One peer receives from another; the list below says which.".to_owned(),
        _ => format!("{} flows between peers; the list below names them.", moving.len()),
    };
    let mut sends = vec![false; n];
    let edges: Vec<_> = moving
        .iter()
        .filter_map(|flow| {
            let (from, to) = (*at.get(&flow.from.peer_id)?, *at.get(&flow.to.peer_id)?);
            sends[from] = true;
            Some((flow, curve(place(from, n), place(to, n)), 1.25 + 3.75 * (flow.rate as f64 / fastest as f64).sqrt()))
        })
        .collect();
    html! {
        svg.picture role="img" aria-label=(label) viewBox="-30 0 460 320" {
            ellipse.ring cx=(dec(CENTRE.0)) cy=(dec(CENTRE.1)) rx=(dec(RADIUS.0)) ry=(dec(RADIUS.1)) {}
            @for (flow, path, width) in &edges {
                g data-key=(format!("{}{}", flow.from.peer_id, flow.to.peer_id)) {
                    title { (name(&flow.from.name)) " → " (name(&flow.to.name)) ", " (rate(flow.rate)) }
                    path.pipe d=(path) stroke-width=(format!("{width:.1}")) {}
                    path.drops d=(path) stroke-width=(format!("{width:.1}")) {}
                }
            }
            @for (ix, (id, full)) in nodes.iter().enumerate() {
                @let (x, y) = place(ix, n);
                @let (label_x, label_y, anchor) = label_place(ix, n);
                g data-key=(id) {
                    title { (name(full)) }
                    circle class=(if sends[ix] { "node sends" } else { "node" }) cx=(dec(x)) cy=(dec(y)) r="6" {}
                    text x=(dec(label_x)) y=(dec(label_y)) text-anchor=(anchor) { (name(&short(full))) }
                }
            }
            @if moving.is_empty() {
                text.calm x=(dec(CENTRE.0)) y=(dec(CENTRE.1 + 4.0)) text-anchor="middle" { "Nothing is moving" }
            }
        }
    }
}

/// The same in words.
pub(super) fn flow_list(moving: &[Moving]) -> Markup {
    html! {
        @if !moving.is_empty() {
            ul.rows.flows {
                @for flow in moving.iter().take(MAX_LISTED) {
                    li data-key=(format!("{}{}", flow.from.peer_id, flow.to.peer_id)) {
                        span.route {
                            bdi { (name(&flow.from.name)) }
                            span.arrow aria-hidden="true" { "→" } span.said { " sends to " }
                            bdi { (name(&flow.to.name)) }
                        }
                        span.what {
                            @if let Some(path) = &flow.name {
                                a href=(page_of(path.as_str())) { bdi { (name(path.file_name())) } }
                            }
                        }
                        span.rate { (rate(flow.rate)) }
                    }
                }
            }
            @if moving.len() > MAX_LISTED { p.note { "… and " (moving.len() - MAX_LISTED) " slower ones." } }
        }
    }
}

fn nodes(peers: &[PeerInfo], moving: &[Moving]) -> Vec<(PeerId, String)> {
    let mut nodes: BTreeMap<PeerId, String> = BTreeMap::new();
    let ends = moving.iter().flat_map(|flow| [&flow.from, &flow.to]).map(|end| (end.peer_id, &end.name));
    for (id, name) in ends.chain(peers.iter().map(|peer| (peer.peer_id, &peer.name))) {
        if nodes.len() < MAX_NODES {
            nodes.entry(id).or_insert_with(|| name.clone());
        }
    }
    let mut nodes: Vec<_> = nodes.into_iter().collect();
    nodes.sort_by(|a, b| (&a.1, a.0).cmp(&(&b.1, b.0)));
    nodes
}

/// The first at the left, then round; two face each other from side to side.
fn angle(ix: usize, n: usize) -> f64 {
    TAU * (ix as f64 / n.max(1) as f64 + 0.5)
}

fn place(ix: usize, n: usize) -> (f64, f64) {
    let angle = angle(ix, n);
    (CENTRE.0 + RADIUS.0 * angle.cos(), CENTRE.1 + RADIUS.1 * angle.sin())
}

fn label_place(ix: usize, n: usize) -> (f64, f64, &'static str) {
    let (x, y) = place(ix, n);
    let (cos, sin) = (angle(ix, n).cos(), angle(ix, n).sin());
    if cos.abs() < 0.35 {
        let below = if sin > 0.0 { 23.0 } else { -14.0 };
        return (x, y + below, "middle");
    }
    (x + 13.0 * cos.signum(), y + 4.0 + 5.0 * sin, if cos > 0.0 { "start" } else { "end" })
}

/// Bent towards the middle, and to one side, so that both directions between two peers are seen.
fn curve(from: (f64, f64), to: (f64, f64)) -> String {
    let middle = (f64::midpoint(from.0, to.0), f64::midpoint(from.1, to.1));
    let (dx, dy) = (to.0 - from.0, to.1 - from.1);
    let control =
        (middle.0 + 0.45 * (CENTRE.0 - middle.0) + 0.10 * dy, middle.1 + 0.45 * (CENTRE.1 - middle.1) - 0.10 * dx);
    let [a, b, c, d, e, f] = [from.0, from.1, control.0, control.1, to.0, to.1].map(dec);
    format!("M{a} {b}Q{c} {d} {e} {f}")
}

fn dec(number: f64) -> String {
    format!("{number:.1}")
}

fn short(name: &str) -> String {
    if name.chars().count() <= MAX_LABEL {
        return name.to_owned();
    }
    name.chars().take(MAX_LABEL - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names() {
        let check = |text: &str, want: &str| assert_eq!(short(text), want);
        check("node1", "node1");
        check("twelve-chars", "twelve-chars");
        check("thirteen-char", "thirteen-ch…");
        check("日本語日本語日本語日本語日", "日本語日本語日本語日本…");
    }

    /// Everything, labels included, lies inside the picture, and both directions between two are different curves.
    #[test]
    fn inside() {
        for n in 1..=MAX_NODES {
            for ix in 0..n {
                let (x, y) = place(ix, n);
                assert!((0.0..=400.0).contains(&x) && (0.0..=320.0).contains(&y), "{ix} of {n}");
                let (x, y, _) = label_place(ix, n);
                assert!((60.0..=340.0).contains(&x) && (10.0..=310.0).contains(&y), "label {ix} of {n}: {x} {y}");
                let other = place((ix + 1) % n, n);
                assert!(n == 1 || curve(place(ix, n), other) != curve(other, place(ix, n)));
            }
        }
    }
}
