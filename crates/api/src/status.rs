//! Error class <-> status code: the only place that knows the numbers (google/rpc/code.proto).

use types::{Class, Error};

use crate::google::rpc::Status;

const TABLE: [(Class, i32); 16] = [
    (Class::Canceled, 1),
    (Class::Unknown, 2),
    (Class::InvalidArgument, 3),
    (Class::DeadlineExceeded, 4),
    (Class::NotFound, 5),
    (Class::AlreadyExists, 6),
    (Class::PermissionDenied, 7),
    (Class::ResourceExhausted, 8),
    (Class::FailedPrecondition, 9),
    (Class::Aborted, 10),
    (Class::OutOfRange, 11),
    (Class::Unimplemented, 12),
    (Class::Internal, 13),
    (Class::Unavailable, 14),
    (Class::DataLoss, 15),
    (Class::Unauthenticated, 16),
];

/// The status code of a class.
pub fn code(class: Class) -> i32 {
    TABLE.iter().find(|(c, _)| *c == class).map_or(2, |(_, code)| *code)
}

/// The class of a status code; a code that nobody defined is [`Class::Unknown`].
pub fn class(code: i32) -> Class {
    TABLE.iter().find(|(_, c)| *c == code).map_or(Class::Unknown, |(class, _)| *class)
}

/// The status that carries `error` over a ttrpc connection.
pub fn to_status(error: &Error) -> Status {
    Status { code: code(error.class()), message: error.to_string(), details: Vec::new() }
}

/// The error that a peer sent.
pub fn from_status(status: Status) -> Error {
    Error::new(class(status.code), status.message)
}
