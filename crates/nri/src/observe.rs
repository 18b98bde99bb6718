//! What plugins were asked and what came of it, for who counts. Names of operations and of errors are upstream's.

use std::sync::Arc;
use std::time::Duration;

use runtime::ttrpc::Failure;
use types::Class;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// A plugin was asked, or told, something.
    Asked {
        /// `NN-name`.
        plugin: String,
        /// Such as `CreateContainer`.
        operation: &'static str,
        /// How long it took.
        took: Duration,
        /// Why there was no good answer, if there was none.
        error: Option<&'static str>,
    },
    /// It wants something of other containers.
    Wanted {
        /// `NN-name`.
        plugin: String,
        /// Such as `CreateContainer`.
        operation: &'static str,
        /// How many are to be updated.
        updates: usize,
        /// How many are to be ended.
        evictions: usize,
    },
    /// So many plugins are there.
    Active(usize),
}

/// Who counts.
pub type Observe = Arc<dyn Fn(Observed) + Send + Sync>;

/// What a failure is called.
pub(crate) fn word(failure: &Failure) -> &'static str {
    match failure {
        Failure::Closed => "other",
        Failure::Deadline => "deadline_exceeded",
        Failure::Answer(error) => class(error.class()),
    }
}

fn class(class: Class) -> &'static str {
    match class {
        Class::Canceled => "canceled",
        Class::Unknown => "unknown",
        Class::InvalidArgument => "invalid_argument",
        Class::DeadlineExceeded => "deadline_exceeded",
        Class::NotFound => "not_found",
        Class::AlreadyExists => "already_exists",
        Class::PermissionDenied => "permission_denied",
        Class::ResourceExhausted => "resource_exhausted",
        Class::FailedPrecondition => "failed_precondition",
        Class::Aborted => "aborted",
        Class::OutOfRange => "out_of_range",
        Class::Unimplemented => "unimplemented",
        Class::Internal => "internal",
        Class::Unavailable => "unavailable",
        Class::DataLoss => "data_loss",
        Class::Unauthenticated => "unauthenticated",
    }
}
