//! What a plugin says went wrong.

use std::fmt;

use serde::Deserialize;
use types::{Class, Error};

/// The codes that the specification names and that something here decides on or answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    UnknownContainer = 3,
    InvalidEnvironment = 4,
    InvalidConfig = 7,
    TryAgainLater = 11,
    NotAvailable = 50,
    LimitedConnectivity = 51,
}

/// An error as a plugin writes it to its standard output: [`Error`]'s source, for those who want the code.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PluginError {
    /// Below 100 they are the specification's, from 100 on the plugin's own.
    pub code: u64,
    /// One line.
    pub msg: String,
    /// More.
    pub details: String,
}

impl PluginError {
    pub(crate) fn new(code: Code, msg: impl Into<String>, details: impl Into<String>) -> Self {
        Self { code: code as u64, msg: msg.into(), details: details.into() }
    }

    /// One without a code.
    pub(crate) fn plain(msg: impl Into<String>) -> Self {
        Self { msg: msg.into(), ..Self::default() }
    }

    /// The error of who asked the plugin: `doing`, and this below it.
    pub(crate) fn while_doing(self, doing: impl Into<String>) -> Error {
        Error::caused(self.class(), doing, self)
    }

    /// An error in the same words, where no plugin was asked.
    pub(crate) fn of_ours(&self) -> Error {
        Error::new(self.class(), self.to_string())
    }

    fn is(&self, code: Code) -> bool {
        self.code == code as u64
    }

    /// What a caller can do about it.
    fn class(&self) -> Class {
        match self {
            _ if self.is(Code::InvalidConfig) || self.is(Code::InvalidEnvironment) => Class::InvalidArgument,
            _ if self.is(Code::UnknownContainer) => Class::NotFound,
            _ if self.is(Code::TryAgainLater)
                || self.is(Code::NotAvailable)
                || self.is(Code::LimitedConnectivity) =>
            {
                Class::Unavailable
            }
            _ => Class::Unknown,
        }
    }
}

impl fmt::Display for PluginError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.msg)?;
        if self.details.is_empty() { Ok(()) } else { write!(f, "; {}", self.details) }
    }
}

impl std::error::Error for PluginError {}
