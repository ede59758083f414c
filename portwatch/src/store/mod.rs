//! The recording: a stream kept in one SQLite file, to be asked and replayed later.
//!
//! ```text
//! item → keep → encode ══ queue ══▶ database::write   (a thread)
//!                                   database::expire  (what retention decides)
//! item ← decode ◀── database::read
//! ```
//!
//! - `row` says what the tables hold; `encode` makes rows of items and `decode` items of rows. Both are
//!   functions: nothing between them and a test. What is printed of an item comes back, byte for byte;
//!   what no output shows is not kept.
//! - Rows that many others would repeat are written once (`dictionary`): what is called and how
//!   (`call`), what runs (`program`), the process (`process`). Each counts the rows that refer to it
//!   (`uses`), so that it can go with the last of them, without an index on the largest table.
//! - The order is that of `seq`. Clocks may jump.
//! - `keep` says what is worth keeping, `retention` what has to go, `identity` whether a file is ours.
//!   These decide, and do nothing.
//! - `database` is the only one that knows SQL, `writer` the only one that knows threads. The loop that
//!   empties the ring never waits for either: where the disk is slow the queue grows, up to a bound, and
//!   what does not fit is told as lost where it is missing.

pub mod database;
pub mod decode;
mod dictionary;
pub mod encode;
pub mod identity;
pub mod keep;
pub mod lock;
pub mod place;
pub mod retention;
pub mod row;
pub mod schema;
pub mod sink;
pub mod writer;
