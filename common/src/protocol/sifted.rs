//! Lists from somebody else: the good items stay, the bad ones are counted.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list from somebody else, without the items that cannot be what they should (a name with `..`, an id of the
/// wrong length): one bad entry must not hide the good ones. Written as a plain list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sifted<T> {
    /// The good items in order.
    pub items: Vec<T>,
    /// How many were dropped while reading.
    pub n_refused: usize,
}

impl<T> Default for Sifted<T> {
    fn default() -> Self {
        Self::from(Vec::new())
    }
}

impl<T> Sifted<T> {
    /// Whether there was nothing at all, neither good nor bad.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty() && self.n_refused == 0
    }
}

impl<T> From<Vec<T>> for Sifted<T> {
    fn from(items: Vec<T>) -> Self {
        Self { items, n_refused: 0 }
    }
}

impl<T: Serialize> Serialize for Sifted<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.items.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sifted<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Item<T> {
            Good(T),
            Bad(serde::de::IgnoredAny),
        }
        let mut sifted = Self::from(Vec::new());
        for item in Vec::<Item<T>>::deserialize(deserializer)? {
            match item {
                Item::Good(item) => sifted.items.push(item),
                Item::Bad(_) => sifted.n_refused += 1,
            }
        }
        Ok(sifted)
    }
}

#[cfg(test)]
mod tests {
    use crate::id::ContentId;
    use crate::identity::Identity;
    use crate::protocol::Index;

    #[test]
    fn one_bad_name_does_not_hide_the_good_ones() {
        let id = ContentId::of(b"x");
        let text = format!(
            r#"{{"peer_id":"{}","name":"n","next":null,"files":[
                {{"path":"a","content_id":"{id}","len":1}}, {{"path":"../a","content_id":"{id}","len":1}},
                {{"path":"b","content_id":"0","len":1}}, {{"path":"c","content_id":"{id}","len":-1}}, 7, null,
                {{"path":"d","content_id":"{id}","len":2}}]}}"#,
            Identity::from_secret(&[1; 32]).peer_id()
        );
        let index: Index = serde_json::from_str(&text).unwrap();
        let paths: Vec<_> = index.files.items.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!((paths, index.files.n_refused), (vec!["a", "d"], 5));
    }
}
