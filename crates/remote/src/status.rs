//! gRPC status -> error, as containerd's Go clients read it.

use tonic::Status;
use types::{Class, Error};

/// The words of a class that end a message, those of upstream's errdefs.
pub fn text(class: Class) -> &'static str {
    match class {
        Class::InvalidArgument => "invalid argument",
        Class::NotFound => "not found",
        Class::AlreadyExists => "already exists",
        Class::FailedPrecondition => "failed precondition",
        Class::Unavailable => "unavailable",
        Class::Unimplemented => "not implemented",
        Class::Canceled => "context canceled",
        Class::DeadlineExceeded => "context deadline exceeded",
        Class::OutOfRange => "out of range",
        Class::DataLoss => "data loss",
        Class::ResourceExhausted => "resource exhausted",
        Class::PermissionDenied => "permission denied",
        Class::Unauthenticated => "unauthorized",
        Class::Aborted => "aborted",
        Class::Internal => "internal",
        Class::Unknown => "unknown",
    }
}

/// The error that a status means. Its message ends with the words of its class, which are added where the server
/// did not say them: that is what Go clients print, and what people search for.
#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(from_status)`")]
pub fn from_status(status: Status) -> Error {
    let class = api::status::class(status.code().into());
    let (message, words) = (status.message(), text(class));
    let says = message == words || message.ends_with(&format!(": {words}"));
    // Go knows two more classes behind this code, told apart by their words only.
    let other = class == Class::FailedPrecondition
        && [": conflict", ": not modified"].iter().any(|words| message.ends_with(words));
    if says || other {
        return Error::new(class, message);
    }
    if message.is_empty() {
        Error::new(class, words)
    } else {
        Error::new(class, format!("{message}: {words}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_is_said_once_at_the_end() {
        let e = from_status(Status::not_found("image \"x\": not found"));
        assert_eq!((e.class(), e.to_string()), (Class::NotFound, "image \"x\": not found".into()));
        assert_eq!(from_status(Status::not_found("image \"x\"")).to_string(), "image \"x\": not found");
        assert_eq!(from_status(Status::unknown("")).to_string(), "unknown");
        assert_eq!(from_status(Status::failed_precondition("a: conflict")).to_string(), "a: conflict");
    }
}
