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

/// The error that a status means, with its words as they are: those of a class stand where the server put them.
#[expect(clippy::needless_pass_by_value, reason = "used as `map_err(from_status)`")]
pub fn from_status(status: Status) -> Error {
    if let Some(text) = crate::patience::silence(&status) {
        return Error::unavailable(text);
    }
    let class = api::status::class(status.code().into());
    let (message, words) = (status.message(), text(class));
    match class {
        // Not the server's answer but hyper's: the connection went before the request did. Nobody has cancelled
        // anything, and another try will do; the words are those of Go's clients.
        Class::Canceled | Class::Unknown if std::error::Error::source(&status).is_some() => {
            Error::unavailable("error reading from server: EOF: unavailable")
        }
        _ if message.is_empty() => Error::new(class, words),
        // Go's context errors carry no other words than their own, so those are said too.
        Class::Canceled | Class::DeadlineExceeded if !message.ends_with(words) => {
            Error::new(class, format!("{message}: {words}"))
        }
        _ => Error::new(class, message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_went_away_is_unavailable_and_nobody_has_cancelled_anything() {
        for code in [tonic::Code::Cancelled, tonic::Code::Unknown] {
            let mut status = Status::new(code, "operation was canceled");
            assert_ne!(from_status(status.clone()).class(), Class::Unavailable, "the server said so itself");
            status.set_source(std::sync::Arc::new(std::io::Error::other("hyper")));
            assert_eq!(from_status(status).class(), Class::Unavailable);
        }
    }

    #[test]
    fn a_message_stays_as_the_server_wrote_it() {
        let e = from_status(Status::not_found("image \"x\": not found"));
        assert_eq!((e.class(), e.to_string()), (Class::NotFound, "image \"x\": not found".into()));
        assert_eq!(
            from_status(Status::unknown("OCI runtime create failed")).to_string(),
            "OCI runtime create failed"
        );
        assert_eq!(from_status(Status::unknown("")).to_string(), "unknown");
        assert_eq!(
            from_status(Status::deadline_exceeded("wait")).to_string(),
            "wait: context deadline exceeded"
        );
    }
}
