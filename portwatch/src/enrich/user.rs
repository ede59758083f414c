//! Names of users.

use std::{num::NonZeroUsize, sync::Arc};

use lru::LruCache;
use nix::unistd::{Uid, User};

/// More users than act on one machine at a time.
const CAPACITY: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// Names of users by id. A look-up may go to a directory server, so each id is asked for once; ids
/// without a name are remembered too.
#[derive(Debug)]
pub struct Users(Option<LruCache<u32, Option<Arc<str>>>>);

impl Users {
    /// A table that looks names up, or one that knows none (`--numeric`).
    #[must_use]
    pub fn new(numeric: bool) -> Self {
        Self((!numeric).then(|| LruCache::new(CAPACITY)))
    }

    /// The name of a user, where there is one.
    pub fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        self.0
            .as_mut()?
            .get_or_insert(uid, || {
                let user = User::from_uid(Uid::from_raw(uid)).ok().flatten()?;
                Some(user.name.into())
            })
            .clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_has_a_name_unless_it_is_not_wanted() {
        assert_eq!(Users::new(false).name(0).as_deref(), Some("root"));
        assert_eq!(Users::new(true).name(0), None);
    }

    #[test]
    fn an_id_nobody_has_is_asked_for_once() {
        let mut users = Users::new(false);
        assert_eq!(users.name(4_000_000_001), None);
        assert_eq!(users.0.as_ref().map(LruCache::len), Some(1));
    }
}
