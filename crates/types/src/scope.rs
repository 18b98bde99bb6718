//! In whose name a call is made: arguments, never ambient state.

use crate::namespace::Namespace;

/// The namespace a call works in, and the lease that holds what it creates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Where records are looked up and created.
    pub namespace: Namespace,
    /// Everything the call creates is added to this lease.
    pub lease: Option<String>,
}

impl Scope {
    /// A scope without a lease.
    pub fn new(namespace: Namespace) -> Self {
        Self { namespace, lease: None }
    }

    /// The same namespace, holding what is created by `lease`.
    pub fn with_lease(self, lease: impl Into<String>) -> Self {
        Self { lease: Some(lease.into()), ..self }
    }
}
