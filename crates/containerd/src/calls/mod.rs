//! Every gRPC call, counted and listed while it lasts.
//!
//! [`layer`] wraps the routes: it announces a call here when its headers have come and tells its end when its trailers go,
//! or when the client has gone away. The metrics page reads the counters, the dump the calls under way. Counting is a few
//! atomic additions a call, whether or not anybody looks.

mod body;
mod layer;
pub mod methods;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tonic::Code;

pub use layer::Observe;
use methods::Method;

use crate::metrics::Latencies;
use crate::traces::Tracer;

/// How many codes a call can end with.
const CODES: usize = 17;

/// The calls of this daemon's life. Cloning shares them.
#[derive(Clone, Debug)]
pub struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// By [`Method::index`].
    counted: Vec<Counters>,
    flights: Mutex<HashMap<u64, Flight>>,
    next: AtomicU64,
    /// If traces are wanted.
    tracer: OnceLock<Tracer>,
}

/// What is counted about a method.
#[derive(Debug, Default)]
pub struct Counters {
    /// Whether the service is on the routes; others are not counted, as by upstream.
    served: AtomicBool,
    /// Calls begun.
    pub started: AtomicU64,
    /// Messages that came.
    pub received: AtomicU64,
    /// Messages that went.
    pub sent: AtomicU64,
    /// Calls ended, by code.
    pub handled: [AtomicU64; CODES],
    /// How long they took.
    pub took: Latencies,
}

impl Counters {
    fn ended(&self, code: Code, took: Duration) {
        add(&self.handled[(code as usize).min(CODES - 1)]);
        self.took.add(took);
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A call under way. Its texts are copies: parts of the request would keep the buffer that it was read into.
#[derive(Clone, Debug)]
pub struct Flight {
    /// `/service/method`, as the client wrote it.
    pub path: Box<str>,
    /// In which namespace, with what is no text escaped.
    pub namespace: Box<str>,
    /// Since when.
    pub since: Instant,
}

impl Calls {
    /// Nothing called yet.
    pub fn new() -> Self {
        Self(Arc::new(Inner {
            counted: methods::all().map(|_| Counters::default()).collect(),
            flights: Mutex::default(),
            next: AtomicU64::new(0),
            tracer: OnceLock::new(),
        }))
    }

    /// A service is on the routes: its methods are counted and shown from now on.
    pub fn serves(&self, service: &str) {
        let mut known = false;
        for (_, counters) in
            methods::all().zip(&self.0.counted).filter(|(method, _)| method.service == service)
        {
            counters.served.store(true, Ordering::Relaxed);
            known = true;
        }
        if !known {
            tracing::error!(service, "calls are not counted: calls/methods.rs does not know the service");
        }
    }

    /// From now on calls become spans.
    pub fn trace(&self, tracer: Tracer) {
        // Whoever was first stays.
        drop(self.0.tracer.set(tracer));
    }

    /// The tracer, if there is one.
    pub fn tracer(&self) -> Option<&Tracer> {
        self.0.tracer.get()
    }

    /// The methods served, in order, each with what was counted.
    pub fn counted(&self) -> impl Iterator<Item = (Method, &Counters)> {
        methods::all().zip(&self.0.counted).filter(|(_, counters)| counters.served.load(Ordering::Relaxed))
    }

    /// The calls under way, the oldest first.
    pub fn under_way(&self) -> Vec<Flight> {
        let mut flights: Vec<_> = lock(&self.0.flights).values().cloned().collect();
        flights.sort_by_key(|flight| flight.since);
        flights
    }

    /// What to count a request at.
    fn method(&self, path: &str) -> Option<Method> {
        methods::find(path).filter(|method| self.counters(*method).served.load(Ordering::Relaxed))
    }

    fn counters(&self, method: Method) -> &Counters {
        &self.0.counted[method.index]
    }

    /// Lists a call; returns what [`Calls::land`] wants.
    fn take_off(&self, flight: Flight) -> u64 {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.flights).insert(number, flight);
        number
    }

    fn land(&self, number: u64) {
        let mut flights = lock(&self.0.flights);
        flights.remove(&number);
        // A burst of calls does not keep its table.
        if flights.is_empty() && flights.capacity() > 64 {
            flights.shrink_to(16);
        }
    }
}

/// What is locked here is whole between any two statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A code as the label `grpc_code` has it.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
