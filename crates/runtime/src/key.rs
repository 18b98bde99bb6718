//! Which task: a namespace and a container's id, both checked.

use std::fmt;

use types::namespace::validate_identifier;
use types::{Namespace, Result};

/// The name of a task. Both halves are identifiers, so each is safe as one component of a path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct TaskKey {
    namespace: Namespace,
    id: String,
}

impl TaskKey {
    pub(crate) fn new(namespace: &Namespace, id: &str) -> Result<Self> {
        validate_identifier(id).map_err(|e| e.context(format!("invalid task id {id}")))?;
        Ok(Self { namespace: namespace.clone(), id: id.to_owned() })
    }

    pub(crate) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.id)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
