//! The database for those who use it while it is open, and do not keep it open.

use crate::db::{Db, Inner};

/// A database that others keep open.
#[derive(Clone)]
pub struct Weak {
    inner: std::sync::Weak<Inner>,
}

impl Weak {
    /// The database, if it is still open.
    pub fn upgrade(&self) -> Option<Db> {
        Some(Db { inner: self.inner.upgrade()? })
    }
}

impl Db {
    /// The same database, for somebody who does not keep it open.
    pub fn downgrade(&self) -> Weak {
        Weak { inner: std::sync::Arc::downgrade(&self.inner) }
    }
}
