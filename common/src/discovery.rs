//! The words of finding a tracker on the LAN: swarm names, tracker ids, and the two packets of the broadcast.
//!
//! A peer without a tracker broadcasts [`Packet::Ask`] to port [`PORT`]; a tracker of that swarm answers
//! [`Packet::Here`] to the asker alone. The answer has the length of the question, so nobody can be flooded through
//! us, and repeats its nonce, so that only who heard the question can answer. It names a port and no
//! address: the tracker is where the answer came from, and so nobody can be sent to a third party.
//! Parsing is total: whatever came is a packet or nothing.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// UDP port that is asked, and the TCP port a hosted tracker takes if it is free.
pub const PORT: u16 = 7700;
/// The service type of DNS-SD.
pub const SERVICE: &str = "_potluck._tcp.local.";
/// The length of every packet in bytes.
pub const PACKET_LEN: usize = 64;

const MAGIC: &[u8; 7] = b"potluck";
const VERSION: u8 = 1;
const ASK: u8 = 1;
const HERE: u8 = 2;
const MAX_SWARM_LEN: usize = 32;

/// Which of several swarms on one LAN: 1 to 32 of `A–Z a–z 0–9 . _ -`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SwarmName(String);

/// The text is not the name of a swarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a swarm's name has 1 to 32 letters, digits, dots, dashes and underscores")]
pub struct ParseSwarmError;

impl SwarmName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for SwarmName {
    fn default() -> Self {
        Self("default".into())
    }
}

impl FromStr for SwarmName {
    type Err = ParseSwarmError;

    fn from_str(text: &str) -> Result<Self, ParseSwarmError> {
        let fits = (1..=MAX_SWARM_LEN).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
        if fits { Ok(Self(text.to_owned())) } else { Err(ParseSwarmError) }
    }
}

impl TryFrom<String> for SwarmName {
    type Error = ParseSwarmError;

    fn try_from(text: String) -> Result<Self, ParseSwarmError> {
        text.parse()
    }
}

impl From<SwarmName> for String {
    fn from(name: SwarmName) -> Self {
        name.0
    }
}

impl fmt::Display for SwarmName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One run of a tracker, drawn at its start. Of several that peers host, the lowest stays.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TrackerId(pub u64);

/// The text is not the id of a tracker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a tracker's id has 16 hexadecimal digits")]
pub struct ParseTrackerIdError;

impl fmt::Display for TrackerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TrackerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl TryFrom<String> for TrackerId {
    type Error = ParseTrackerIdError;

    fn try_from(text: String) -> Result<Self, ParseTrackerIdError> {
        let digits = text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit());
        match u64::from_str_radix(&text, 16) {
            Ok(id) if digits => Ok(Self(id)),
            _ => Err(ParseTrackerIdError),
        }
    }
}

impl From<TrackerId> for String {
    fn from(id: TrackerId) -> Self {
        id.to_string()
    }
}

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    /// Is there a tracker of this swarm?
    Ask {
        /// Drawn for this question.
        nonce: u64,
        /// Which swarm.
        swarm: SwarmName,
    },
    /// Yes: at the address this came from.
    Here {
        /// Of the question.
        nonce: u64,
        /// Which swarm.
        swarm: SwarmName,
        /// The TCP port it serves on.
        port: u16,
    },
}

impl Packet {
    /// As it travels, filled up with zeros.
    pub fn encode(&self) -> [u8; PACKET_LEN] {
        let (kind, nonce, swarm, port) = match self {
            Self::Ask { nonce, swarm } => (ASK, nonce, swarm, 0),
            Self::Here { nonce, swarm, port } => (HERE, nonce, swarm, *port),
        };
        let mut bytes = [0; PACKET_LEN];
        bytes[..7].copy_from_slice(MAGIC);
        (bytes[7], bytes[8]) = (VERSION, kind);
        bytes[9..17].copy_from_slice(&nonce.to_be_bytes());
        bytes[17..19].copy_from_slice(&port.to_be_bytes());
        let name = swarm.as_str().as_bytes();
        // A swarm's name has at most 32 bytes.
        bytes[19] = u8::try_from(name.len()).unwrap_or(0);
        bytes[20..20 + name.len()].copy_from_slice(name);
        bytes
    }

    /// What a datagram says; `None` if it is none of ours.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; PACKET_LEN] = bytes.try_into().ok()?;
        let nonce = u64::from_be_bytes(bytes[9..17].try_into().ok()?);
        let port = u16::from_be_bytes([bytes[17], bytes[18]]);
        let (name, padding) = bytes[20..].split_at_checked(bytes[19].into())?;
        let swarm = std::str::from_utf8(name).ok()?.parse().ok()?;
        if &bytes[..7] != MAGIC || bytes[7] != VERSION || padding.iter().any(|byte| *byte != 0) {
            return None;
        }
        match (bytes[8], port) {
            (ASK, 0) => Some(Self::Ask { nonce, swarm }),
            (HERE, 1..) => Some(Self::Here { nonce, swarm, port }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet() -> impl Strategy<Value = Packet> {
        let name = (1..=MAX_SWARM_LEN, any::<u64>()).prop_map(|(len, seed)| {
            let mut rng = fastrand::Rng::with_seed(seed);
            (0..len)
                .map(|_| char::from(rng.choice(*b"aZ09.-_").unwrap()))
                .collect::<String>()
                .parse::<SwarmName>()
                .unwrap()
        });
        (any::<u64>(), name, any::<u16>()).prop_map(|(nonce, swarm, port)| match port {
            0 => Packet::Ask { nonce, swarm },
            port => Packet::Here { nonce, swarm, port },
        })
    }

    proptest! {
        #[test]
        fn what_is_sent_is_read(packet in packet()) {
            prop_assert_eq!(Packet::parse(&packet.encode()), Some(packet));
        }

        /// H15: whatever comes is a packet in its only spelling, or nothing.
        #[test]
        fn bytes_that_were_bent(packet in packet(), at in 0..PACKET_LEN, flip in 1u8.., cut in 0..PACKET_LEN) {
            let mut bytes = packet.encode();
            bytes[at] ^= flip;
            if let Some(other) = Packet::parse(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
            prop_assert_eq!(Packet::parse(&bytes[..cut]), None);
        }

        #[test]
        fn noise_is_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(Packet::parse(&bytes), None);
        }
    }

    #[test]
    fn names_and_ids() {
        let check = |text: &str, want: bool| assert_eq!(text.parse::<SwarmName>().is_ok(), want, "{text:?}");
        check("default", true);
        check("Room_2.b-c", true);
        check(&"x".repeat(32), true);
        for bad in ["", "a b", "a/b", "ä", "a\0", "\x1b[2J", &"x".repeat(33)] {
            check(bad, false);
        }
        let id = TrackerId(0xab);
        assert_eq!(TrackerId::try_from(id.to_string()), Ok(id));
        for bad in ["", "ab", "+0000000000000ab", "00000000000000zz", "000000000000000ab"] {
            assert_eq!(TrackerId::try_from(bad.to_owned()), Err(ParseTrackerIdError), "{bad}");
        }
    }

    /// H15: an answer is never longer than its question.
    #[test]
    fn nothing_is_amplified() {
        let swarm = SwarmName::default();
        let ask = Packet::Ask { nonce: 1, swarm: swarm.clone() }.encode();
        assert!(Packet::Here { nonce: 1, swarm, port: 7700 }.encode().len() <= ask.len());
    }
}
