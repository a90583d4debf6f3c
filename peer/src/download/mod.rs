//! Downloading: from a name to verified bytes under that name.
//!
//! [`pattern`] reads what was typed and [`plan`] finds out which contents are meant; [`large`] drives the scheduler for contents
//! of several chunks and [`small`] fetches the others whole, many in one request where [`bundling`] gathers what is [`waiting`]; [`claim`] proves a length and a chunk map, [`fetch`] is
//! one request, [`neighbours`] listens to what others gain, [`live`] tells others what we gain, [`partial`] holds the unfinished bytes on disk,
//! [`place`] is the step to the final name, [`batch`] the same for many small contents at once, which [`placing`] gathers.
//! [`origin`] is a download that names an origin, [`unheld`] fetches one of which no chunk map is known, into a [`spool`].
//! [`job`] puts them together.

pub mod batch;
pub mod bundling;
pub mod claim;
pub mod fetch;
pub mod job;
pub mod large;
pub mod live;
pub mod moving;
pub mod neighbours;
pub mod origin;
pub mod owners;
pub mod partial;
pub mod pattern;
pub mod place;
pub mod placing;
pub mod plan;
pub mod small;
pub mod spool;
pub mod unheld;
pub mod waiting;
pub mod writing;
