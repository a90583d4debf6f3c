//! Whose pages come: each tracker and peer by the number that the machine knows it by.
//!
//! Invariant: no number is given twice, however many sources have gone: what one of them lacks is never taken for what another one
//! lacks.

use std::collections::BTreeMap;

use super::action::Source as Number;
use crate::wire::follow::Source;

/// See the module's text.
#[derive(Debug, Default)]
pub struct Sources {
    numbers: BTreeMap<Source, Number>,
    n_given: u32,
}

impl Sources {
    /// The number of a source; a new one gets the next.
    pub fn number_of(&mut self, source: &Source) -> Number {
        if let Some(number) = self.get(source) {
            return number;
        }
        let number = Number(self.n_given);
        self.n_given += 1;
        self.numbers.insert(source.clone(), number);
        number
    }

    /// The number of a source that has been heard.
    pub fn get(&self, source: &Source) -> Option<Number> {
        self.numbers.get(source).copied()
    }

    /// Forgets some; the numbers that they had.
    pub fn take(&mut self, is_gone: impl Fn(&Source) -> bool) -> Vec<Number> {
        self.numbers.extract_if(.., |source, _| is_gone(source)).map(|(_, number)| number).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tracker that came after another one had gone got the number of a third, and was then taken to know what that one knew.
    #[test]
    fn a_number_is_never_given_twice() {
        let [a, b, c] = ["a", "b", "c"].map(|host| Source::Tracker(format!("http://{host}").parse().unwrap()));
        let mut sources = Sources::default();
        let (first, second) = (sources.number_of(&a), sources.number_of(&b));
        assert_eq!((sources.number_of(&a), sources.get(&c)), (first, None));
        assert_eq!(sources.take(|source| *source == a), [first]);
        let third = sources.number_of(&c);
        assert!(third != second && third != first);
        assert!(sources.number_of(&a) != first, "it has to tell everything anew");
        assert_eq!(sources.get(&b), Some(second));
    }
}
