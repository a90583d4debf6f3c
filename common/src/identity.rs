//! Who a peer is: an Ed25519 key pair made once and kept in `.potluck/identity`.
//!
//! The peer id is a hash of the public key, so an id cannot be taken by another key. Every announce is
//! signed over its exact bytes; the secret never leaves the peer, so neither a tracker nor a listener
//! can speak in its name.

use std::fmt;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::PeerId;

/// Name of the HTTP header that carries the signature of the body, 128 hex digits.
pub const SIGNATURE_HEADER: &str = "potluck-signature";

/// The secret half. Its `Debug` shows only the peer id.
pub struct Identity(SigningKey);

impl Identity {
    /// From 32 secret bytes of a good random source.
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(secret))
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// The id that belongs to this key.
    pub fn peer_id(&self) -> PeerId {
        self.public_key().peer_id()
    }

    /// The value of [`SIGNATURE_HEADER`] for a body.
    pub fn sign(&self, body: &[u8]) -> String {
        hex::encode(self.0.sign(body).to_bytes())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret not shown)", self.peer_id())
    }
}

/// The public half, as announced: 64 hex digits. It may be any bytes until a signature verifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The id that belongs to this key.
    pub fn peer_id(&self) -> PeerId {
        let hash = blake3::hash(&self.0);
        let (id, _) = hash.as_bytes().split_first_chunk().expect("a hash has 32 bytes");
        PeerId::from_bytes(*id)
    }

    /// Whether `signature` (hex) was made by this key over exactly `body`.
    pub fn verifies(&self, body: &[u8], signature: &str) -> bool {
        let mut bytes = [0; 64];
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        hex::decode_to_slice(signature, &mut bytes).is_ok()
            && key.verify_strict(body, &Signature::from_bytes(&bytes)).is_ok()
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(self.0))
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let mut bytes = [0; 32];
        hex::decode_to_slice(&*text, &mut bytes).map_err(serde::de::Error::custom)?;
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures() {
        let (a, b) = (Identity::from_secret(&[1; 32]), Identity::from_secret(&[2; 32]));
        let signature = a.sign(b"body");
        assert!(a.public_key().verifies(b"body", &signature));
        assert!(!a.public_key().verifies(b"Body", &signature));
        assert!(!b.public_key().verifies(b"body", &signature));
        for bad in ["", "00", &"0".repeat(128), &"z".repeat(128), &signature[..126]] {
            assert!(!a.public_key().verifies(b"body", bad), "{bad}");
        }
        assert!(!PublicKey([0; 32]).verifies(b"body", &"0".repeat(128)));
        assert_ne!(a.peer_id(), b.peer_id());
    }

    #[test]
    fn debug_keeps_the_secret() {
        let shown = format!("{:?}", Identity::from_secret(&[7; 32]));
        assert!(!shown.contains("0707") && !shown.contains("7, 7"), "{shown}");
    }
}
