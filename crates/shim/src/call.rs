//! Calls, their answers and events, in the shim's own words. `service` turns them into wire messages and back.

/// A request that waits for its answer: whose, and which of theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call {
    /// The connection.
    pub client: u64,
    /// The stream on it.
    pub stream: u32,
}

impl Call {
    /// Of no client: nobody hears the answer.
    pub const NOBODYS: Self = Self { client: 0, stream: 0 };
}

/// How and when a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, or 128 + signal.
    pub status: u32,
    /// Seconds since the Unix epoch.
    pub seconds: i64,
    /// And nanoseconds.
    pub nanos: i32,
}

impl Exit {
    /// What is said of a process that never ran: Go's zero time, the first second of the year 1.
    pub const NEVER: Self = Self { status: 0, seconds: -62_135_596_800, nanos: 0 };

    /// An exit now.
    pub fn now(status: u32) -> Self {
        let (seconds, nanos) = types::time::unix(std::time::SystemTime::now());
        Self { status, seconds, nanos: nanos.cast_signed() }
    }
}

/// What a call that succeeds is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is done.
    Empty,
    /// The pid of what was created or started.
    Pid(u32),
    /// How the process ended.
    Exit(Exit),
    /// What was deleted; no exit if it never ran.
    Deleted {
        /// Its pid, 0 if it never had one.
        pid: u32,
        /// How it ended.
        exit: Option<Exit>,
    },
}

/// What the world is told about a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It exists.
    Created {
        /// Of init.
        pid: u32,
    },
    /// Init runs.
    Started {
        /// Of init.
        pid: u32,
    },
    /// A process was added.
    ExecAdded {
        /// Its id.
        exec: String,
    },
    /// An added process runs.
    ExecStarted {
        /// Its id.
        exec: String,
        /// Its number.
        pid: u32,
    },
    /// Its processes are frozen.
    Paused,
    /// They go on.
    Resumed,
    /// The kernel ran out of the memory that it may have.
    OutOfMemory,
    /// A process has ended.
    Exited {
        /// Its id, empty for init.
        exec: String,
        /// Its number.
        pid: u32,
        /// How and when.
        exit: Exit,
    },
    /// The container is gone.
    Deleted {
        /// Of init.
        pid: u32,
        /// How and when it ended.
        exit: Exit,
    },
}
