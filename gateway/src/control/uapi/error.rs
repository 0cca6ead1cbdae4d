//! Why a request was refused, and the number `wg` is told.

/// Why a request was refused. Never holds a key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UapiError {
    /// The request begins with neither `get=1` nor `set=1`.
    #[error("the operation is neither get=1 nor set=1")]
    UnknownOperation,
    /// Something stands between `get=1` and the empty line.
    #[error("get=1 is not followed by an empty line")]
    TrailingGet,
    /// A line without `=`.
    #[error("line {line} has no '='")]
    NoEquals {
        /// Line of the request, from 1.
        line: usize,
    },
    /// A key that is not known, or not where it stands.
    #[error("line {line}: unknown key {key:?}")]
    UnknownKey {
        /// Line of the request, from 1.
        line: usize,
        /// The key, or `...` where it looks like none: it may be a secret that was pasted.
        key: String,
    },
    /// A value its key does not take. The value itself may be a secret and is left out.
    #[error("line {line}: bad value for {key}")]
    BadValue {
        /// Line of the request, from 1.
        line: usize,
        /// The key.
        key: &'static str,
    },
    /// A line of more than [`super::request::LINE_LEN_MAX`] bytes.
    #[error("line {line} is longer than any line of the protocol")]
    LineTooLong {
        /// Line of the request, from 1.
        line: usize,
    },
    /// As many bytes without a newline: what follows cannot be made sense of.
    #[error("there is a line without an end")]
    EndlessLine,
    /// The client left off in the middle.
    #[error("the request ends without an empty line: nothing of it was applied")]
    Truncated,
    /// More than [`super::request::REQUEST_LEN_MAX`] bytes.
    #[error("the request is larger than {max} bytes", max = super::request::REQUEST_LEN_MAX)]
    RequestTooLong,
    /// The port could not be bound, or the mark not set.
    #[error("{0}")]
    AddressInUse(String),
    /// The device refused: too many peers.
    #[error("{0}")]
    TooManyPeers(String),
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    ShuttingDown,
}

impl UapiError {
    /// The number after `errno=`: negative, as wireguard-go sends it, since `wg` negates what it reads.
    pub fn errno(&self) -> i32 {
        match self {
            Self::NoEquals { .. } | Self::Truncated => -libc::EPROTO,
            Self::UnknownOperation
            | Self::TrailingGet
            | Self::UnknownKey { .. }
            | Self::BadValue { .. }
            | Self::LineTooLong { .. }
            | Self::EndlessLine => -libc::EINVAL,
            Self::RequestTooLong => -libc::EMSGSIZE,
            Self::AddressInUse(_) => -libc::EADDRINUSE,
            Self::TooManyPeers(_) => -libc::ENOMEM,
            Self::ShuttingDown => -libc::EIO,
        }
    }
}
