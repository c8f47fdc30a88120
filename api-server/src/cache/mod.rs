//! Cache of encoded documents: L1 in the process ([`memory`]), L2 in Redis ([`redis`]).
//!
//! Invariants: an entry carries the revision of its document; an invalidation raises the floor of its key, and a fill below
//! the floor is refused in both tiers, so a slow reader never puts an old document back. Redis down means slower, never
//! wrong and never an error.

use bytes::Bytes;

/// A document ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The body of a GET, final newline included.
    pub body: Bytes,
    /// `metadata.version`: the strong validator (`ETag`) is made of it and of the revision.
    pub version: u64,
    /// The store's revision of the document.
    pub revision: i64,
}

/// Which tier answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tier {
    /// The process' own memory.
    L1,
    /// Redis.
    L2,
}

impl Tier {
    /// The word in `Cache-Status` and in metric labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "l1",
            Self::L2 => "l2",
        }
    }
}
