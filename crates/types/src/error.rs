//! One error for all layers: a class, what was being done and to what, and what went wrong below.
//!
//! The class says what the caller can do about it; it is one of upstream's errdefs and becomes a gRPC or ttrpc
//! code in `api::status`, nowhere else. Nobody decides on message text.

use std::fmt;

/// What a caller can do about an error: the classes of containerd's errdefs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The request itself is wrong and stays wrong.
    InvalidArgument,
    /// The named thing does not exist.
    NotFound,
    /// The named thing exists already.
    AlreadyExists,
    /// The thing is in a state that does not allow this.
    FailedPrecondition,
    /// Try again later: locked, starting, gone for a moment.
    Unavailable,
    /// Not built, or not by this plugin.
    Unimplemented,
    /// The caller went away.
    Canceled,
    /// The deadline passed.
    DeadlineExceeded,
    /// An offset or size outside the valid range.
    OutOfRange,
    /// Stored data does not match its digest.
    DataLoss,
    /// A limit of this machine was reached: disk, memory, descriptors.
    ResourceExhausted,
    /// The kernel refused.
    PermissionDenied,
    /// Nobody proved who they are.
    Unauthenticated,
    /// A concurrent change won.
    Aborted,
    /// A bug of ours.
    Internal,
    /// Everything else.
    Unknown,
}

/// The result of almost every function of the project.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn std::error::Error + Send + Sync + 'static>;

/// A class, what was being done ("commit snapshot k8s.io/abc"), and optionally the cause.
///
/// `Display` prints this error and its causes, joined by `: `, as containerd's clients expect to read them.
pub struct Error {
    class: Class,
    message: String,
    source: Option<Source>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident => $class:ident),* $(,)?) => {
        impl Error {
            $($(#[$doc])* pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Class::$class, message)
            })*
        }
    };
}

constructors! {
    /// The request is wrong and stays wrong.
    invalid => InvalidArgument,
    /// The named thing does not exist.
    not_found => NotFound,
    /// The named thing exists already.
    already_exists => AlreadyExists,
    /// Not in this state.
    precondition => FailedPrecondition,
    /// Try again later.
    unavailable => Unavailable,
    /// Not built.
    unimplemented => Unimplemented,
    /// The deadline passed.
    deadline => DeadlineExceeded,
    /// An offset or size outside the valid range.
    out_of_range => OutOfRange,
    /// Stored data does not match its digest.
    data_loss => DataLoss,
    /// A limit of this machine was reached.
    exhausted => ResourceExhausted,
    /// A bug of ours.
    internal => Internal,
    /// Everything else.
    unknown => Unknown,
}

impl Error {
    /// An error of `class` with nothing below it.
    pub fn new(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), source: None }
    }

    /// An error of `class` that `source` caused.
    pub fn caused(class: Class, message: impl Into<String>, source: impl Into<Source>) -> Self {
        Self { class, message: message.into(), source: Some(source.into()) }
    }

    /// What the caller can do about it.
    pub fn class(&self) -> Class {
        self.class
    }

    /// This error's own words, without its causes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The same class, with what was being done put in front.
    pub fn context(self, doing: impl Into<String>) -> Self {
        Self { class: self.class, message: doing.into(), source: Some(Box::new(self)) }
    }

    /// The same words under another class.
    pub fn reclass(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// Whether the class is [`Class::NotFound`].
    pub fn is_not_found(&self) -> bool {
        self.class == Class::NotFound
    }

    /// Whether the class is [`Class::AlreadyExists`].
    pub fn is_already_exists(&self) -> bool {
        self.class == Class::AlreadyExists
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut next = self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static));
        while let Some(error) = next {
            match error.downcast_ref::<Error>() {
                // An `Error` below prints its own chain.
                Some(error) => return write!(f, ": {error}"),
                None => write!(f, ": {error}")?,
            }
            next = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.class)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|s| s as &(dyn std::error::Error + 'static))
    }
}

/// An operating system error in Go's words, which is what clients know: `no such file or directory`, without Rust's
/// capital and number.
pub fn os_text(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

/// No descriptor left, in the system or in this process; the standard library has no kind for it.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

impl From<std::io::Error> for Error {
    /// The class a failed system call has when nobody knows better.
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        let class = match error.kind() {
            _ if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) => Class::ResourceExhausted,
            K::NotFound => Class::NotFound,
            K::AlreadyExists => Class::AlreadyExists,
            K::PermissionDenied => Class::PermissionDenied,
            K::StorageFull | K::QuotaExceeded | K::OutOfMemory => Class::ResourceExhausted,
            K::ReadOnlyFilesystem => Class::FailedPrecondition,
            K::TimedOut => Class::DeadlineExceeded,
            K::ConnectionRefused | K::ConnectionReset | K::BrokenPipe => Class::Unavailable,
            _ => Class::Unknown,
        };
        Self::new(class, error.to_string())
    }
}

/// Adds what was being done to a failed result.
pub trait ResultExt<T> {
    /// Puts `doing()` in front of the error; keeps its class.
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<Error>> ResultExt<T> for std::result::Result<T, E> {
    fn context<S: Into<String>>(self, doing: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.into().context(doing()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_keeps_the_class_and_prints_the_chain_once() {
        let e: Result<()> = Err(Error::not_found("blob sha256:00: not found")).context(|| "unpack layer 2");
        let e = e.unwrap_err().context("create container c1");
        assert_eq!(e.class(), Class::NotFound);
        assert_eq!(e.to_string(), "create container c1: unpack layer 2: blob sha256:00: not found");
    }

    #[test]
    fn the_systems_errors_are_told_in_gos_words() {
        assert_eq!(os_text(&std::io::Error::from_raw_os_error(2)), "no such file or directory");
    }

    #[test]
    fn a_full_disk_and_a_full_table_of_descriptors_are_resource_exhausted() {
        for errno in [23, 24, 28] {
            let e: Error = std::io::Error::from_raw_os_error(errno).into();
            assert_eq!(e.class(), Class::ResourceExhausted, "{e}");
        }
    }
}
