//! Ingests of a namespace: opening one, writing to it, making it a blob.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, SystemTime};

use ::content::{Writer, WriterOptions};
use async_trait::async_trait;
use bytes::Bytes;
use types::content::Status;
use types::{Digest, Error, Result, Scope, crash};

use crate::db::Db;
use crate::leases;
use crate::schema::{BLOB_HOLDERS, BLOBS, INGESTS};
use crate::tx::{Source, Tx};

use super::{BlobRecord, blob_lock, ingest_lock, validate};

/// How long an ingest that no lease holds stays after it was opened last.
const EXPIRES_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
/// How much of a shared blob is copied at a time when it turns out that more is written to it.
const COPY: usize = 1 << 20;

/// Opens or resumes an ingest.
pub(super) async fn open(db: &Db, scope: &Scope, options: WriterOptions) -> Result<Box<dyn Writer>> {
    if options.reference.is_empty() {
        return Err(Error::invalid("ref must not be empty: invalid argument"));
    }
    let _held = db.inner.locks.hold(&ingest_lock(scope, &options.reference)).await;
    let Begun { backend_ref, shared } = match &options.expected {
        Some(expected) => begin_expected(db, scope, &options, expected).await?,
        None => Begun { backend_ref: begin(db, scope, &options, (None, true)).await?, shared: None },
    };
    let mut writer = IngestWriter {
        db: db.clone(),
        scope: scope.clone(),
        reference: options.reference,
        backend_ref,
        total: options.total,
        started: SystemTime::now(),
        state: State::Done(None),
    };
    writer.state = match shared {
        Some(shared) => State::Shared(shared),
        None => State::Own(writer.open_backend(options.total).await?),
    };
    Ok(Box::new(writer))
}

/// An ingest that has its row.
struct Begun {
    backend_ref: String,
    shared: Option<Shared>,
}

/// Another namespace's blob that an ingest stands for.
#[derive(Clone)]
struct Shared {
    digest: Digest,
    size: u64,
}

/// Begins an ingest of which the digest is known: the namespace may have the blob, or another may.
async fn begin_expected(db: &Db, scope: &Scope, options: &WriterOptions, expected: &Digest) -> Result<Begun> {
    let exists = || Error::already_exists(format!("content {expected}: already exists"));
    let ns = scope.namespace.as_str();
    // What is promised while a collection is under way must be known to it, so the writer thread has to look then.
    let unobserved = scope.lease.is_none() && !db.inner.observed.barrier.raised();
    if unobserved
        && let Some(row) = db.read(|txn| txn.get(BLOBS, (ns, expected.as_str())))?
        && file(db, expected).await? == Some(row.size)
    {
        return Err(exists());
    }
    // From here until the row of the ingest says that it needs the blob, nobody removes it.
    let _held = db.inner.locks.hold(&blob_lock(expected.as_str())).await;
    let (file, recorded) = (file(db, expected).await?, recorded(db, expected)?);
    let whole = file.is_some() && recorded.is_none_or(|size| file == Some(size));
    let shared = file
        // The caller may have another size in mind and will learn the truth at commit; a file that no namespace knows
        // counts only if the caller knows its size.
        .filter(|size| whole && (options.total == *size || (options.total == 0 && recorded.is_some())))
        .map(|size| Shared { digest: expected.clone(), size });
    match begin(db, scope, options, (shared.as_ref(), whole)).await? {
        backend_ref if backend_ref.is_empty() => Err(exists()),
        backend_ref => Ok(Begun { backend_ref, shared }),
    }
}

/// The size of a blob's file, if there is one.
async fn file(db: &Db, digest: &Digest) -> Result<Option<u64>> {
    match db.inner.content.info(digest).await {
        Err(error) if error.is_not_found() => Ok(None),
        info => info.map(|info| Some(info.size)),
    }
}

/// The size of a blob as a namespace that has it says.
fn recorded(db: &Db, digest: &Digest) -> Result<Option<u64>> {
    db.read(|txn| {
        let mut holder = None;
        txn.scan_raw(BLOB_HOLDERS, (digest.as_str(), ""), |key, ()| {
            holder = (key.0 == digest.as_str()).then(|| key.1.to_owned());
            Ok(ControlFlow::Break(()))
        })?;
        let Some(holder) = holder else { return Ok(None) };
        Ok(txn.get(BLOBS, (&*holder, digest.as_str()))?.map(|row| row.size))
    })
}

/// Makes the row of an ingest, or finds it, and answers with its name in the backend; with none if the namespace has
/// the expected blob, `whole`, which then is added to the lease.
async fn begin(
    db: &Db,
    scope: &Scope,
    options: &WriterOptions,
    (shared, whole): (Option<&Shared>, bool),
) -> Result<String> {
    let fresh = db.backend_key(&scope.namespace, &options.reference);
    let shares = shared.map(|shared| shared.digest.to_string()).unwrap_or_default();
    let becomes = options.expected.as_ref().map(ToString::to_string).unwrap_or_default();
    let (scope, reference) = (scope.clone(), options.reference.clone());
    db.mutate(move |tx| {
        let ns = scope.namespace.as_str();
        if whole && !becomes.is_empty() && tx.has(BLOBS.table, (ns, &becomes))? {
            leases::add_resource(tx, &scope, "content", &becomes)?;
            return Ok(String::new());
        }
        leases::check_scope(tx, &scope)?;
        let found = tx.get(INGESTS, (ns, &reference))?;
        let mut row = found.clone().unwrap_or_default();
        if row.backend_ref.is_empty() {
            row.backend_ref.clone_from(&fresh);
        }
        // What an earlier writer of this reference shared stays needed as long as the ingest does.
        if !shares.is_empty() || row.shares.is_empty() {
            row.shares.clone_from(&shares);
        }
        if !becomes.is_empty() {
            row.becomes.clone_from(&becomes);
        }
        row.expires = match scope.lease {
            Some(_) => None,
            None => Some((SystemTime::now() + EXPIRES_AFTER).into()),
        };
        let backend_ref = row.backend_ref.clone();
        if found.as_ref() != Some(&row) {
            tx.ensure_namespace(&scope.namespace)?;
            tx.put(INGESTS, (ns, &reference), row)?;
        }
        leases::add_resource(tx, &scope, "ingests", &reference)?;
        Ok(backend_ref)
    })
    .await
}

struct IngestWriter {
    db: Db,
    scope: Scope,
    reference: String,
    backend_ref: String,
    total: u64,
    started: SystemTime,
    state: State,
}

enum State {
    /// Data of its own, in the backend.
    Own(Box<dyn Writer>),
    /// Another namespace's blob, until something else is written.
    Shared(Shared),
    /// Committed, as this digest, or failed for good.
    Done(Option<Digest>),
}

fn done() -> Error {
    Error::precondition("cannot use a writer after its commit: failed precondition")
}

impl IngestWriter {
    /// Opens the ingest in the backend. The digest is not told: whether this namespace has it was asked already.
    async fn open_backend(&self, total: u64) -> Result<Box<dyn Writer>> {
        let options = WriterOptions { reference: self.backend_ref.clone(), total, expected: None };
        self.db.inner.content.writer(options).await
    }

    /// Gives a shared ingest data of its own: the first `size` bytes of the blob that it shares.
    async fn unshare(&mut self, shared: &Shared, size: u64) -> Result<&mut Box<dyn Writer>> {
        let _held = self.db.inner.locks.hold(&ingest_lock(&self.scope, &self.reference)).await;
        let mut writer = self.open_backend(self.total).await?;
        let mut offset = writer.status().await?.offset;
        if offset > size {
            writer.truncate(0).await?;
            offset = 0;
        }
        if offset < size {
            let reader = self.db.inner.content.reader(&shared.digest).await?;
            while offset < size {
                let len = usize::try_from(size - offset).unwrap_or(COPY).min(COPY);
                let data = reader.read_at(offset, len).await?;
                if data.is_empty() {
                    return Err(Error::data_loss(format!(
                        "content {} ends at {offset} of {size}",
                        shared.digest
                    )));
                }
                offset += data.len() as u64;
                writer.write(data).await?;
            }
        }
        self.state = State::Own(writer);
        self.own()
    }

    fn own(&mut self) -> Result<&mut Box<dyn Writer>> {
        match &mut self.state {
            State::Own(writer) => Ok(writer),
            State::Shared(_) | State::Done(_) => Err(done()),
        }
    }

    /// Commits data of our own: the backend first, then the row.
    async fn commit_own(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        let State::Own(writer) = &mut self.state else { return Err(done()) };
        let offset = writer.status().await?.offset;
        let digest = match &expected {
            Some(expected) => expected.clone(),
            None => writer.digest().await?,
        };
        let _held = self.db.inner.locks.hold(&blob_lock(digest.as_str())).await;
        self.db.read(|txn| leases::check_scope(txn, &self.scope))?;
        note(&self.db, &self.scope, &self.reference, &digest).await?;
        let State::Own(mut writer) = std::mem::replace(&mut self.state, State::Done(None)) else {
            return Err(done());
        };
        let found = match writer.commit(size, expected, BTreeMap::new()).await {
            Ok(()) => Found::Nothing,
            // Another namespace has committed it meanwhile.
            Err(error) if error.is_already_exists() => Found::Blob,
            // Its ingest stays, as the contract has it, and so does the row.
            Err(error) => return Err(error),
        };
        drop(writer);
        crash::point("blob-committed");
        match self.record(&digest, offset, (labels, found)).await {
            Err(error) if !error.is_already_exists() => {
                // The blob has no row and will not get one.
                self.db.release(&digest).await?;
                Err(error)
            }
            other => {
                self.state = State::Done(Some(digest));
                other
            }
        }
    }

    /// Commits another namespace's blob.
    async fn commit_shared(
        &mut self,
        shared: Shared,
        size: u64,
        expected: Option<Digest>,
        labels: Labels,
    ) -> Result<()> {
        if let Err(error) = check_shared(&self.reference, &shared, size, expected) {
            self.state = State::Done(None);
            return Err(error);
        }
        let _held = self.db.inner.locks.hold(&blob_lock(shared.digest.as_str())).await;
        // It was there when the row of this ingest began to hold it; if it is not, somebody has removed it by hand.
        self.db.inner.content.info(&shared.digest).await?;
        self.state = State::Done(Some(shared.digest.clone()));
        self.record(&shared.digest, shared.size, (labels, Found::Blob)).await
    }

    /// Replaces the ingest's row by the blob's, or finds that the blob has one. That one stays if the blob's file had
    /// been gone: it keeps its labels and gets these.
    async fn record(&self, digest: &Digest, size: u64, (labels, found): (Labels, Found)) -> Result<()> {
        let (scope, reference, text) = (self.scope.clone(), self.reference.clone(), digest.to_string());
        let row = BlobRecord::new(size, labels);
        let exists = self
            .db
            .mutate(move |tx| {
                let ns = scope.namespace.as_str();
                leases::check_scope(tx, &scope)?;
                let old = tx.get(BLOBS, (ns, &text))?;
                let exists = old.is_some() && found == Found::Blob;
                if !exists {
                    let mut row = row.clone();
                    for (key, value) in old.map(|old| old.labels).unwrap_or_default() {
                        row.labels.entry(key).or_insert(value);
                    }
                    tx.ensure_namespace(&scope.namespace)?;
                    tx.put(BLOBS, (ns, &text), row)?;
                    tx.mark(BLOB_HOLDERS, (&text, ns))?;
                }
                forget(tx, &scope, &reference)?;
                leases::add_resource(tx, &scope, "content", &text)?;
                Ok(exists)
            })
            .await?;
        match exists {
            true => Err(Error::already_exists(format!("content {digest}: already exists"))),
            false => {
                crash::point("blob-row");
                Ok(())
            }
        }
    }
}

/// What the backend had of a blob when it was committed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    Blob,
}

/// Whether a shared blob is what the committer thinks it is.
fn check_shared(reference: &str, shared: &Shared, size: u64, expected: Option<Digest>) -> Result<()> {
    if size != 0 && size != shared.size {
        return Err(Error::precondition(format!(
            "{reference:?} failed size validation: {} != {size}: failed precondition",
            shared.size
        )));
    }
    if expected.is_some_and(|expected| expected != shared.digest) {
        return Err(Error::precondition(format!("{reference:?} unexpected digest: failed precondition")));
    }
    Ok(())
}

/// Notes, durably, what an ingest is about to become, unless its row says so already.
async fn note(db: &Db, scope: &Scope, reference: &str, digest: &Digest) -> Result<()> {
    let (scope, reference, text) = (scope.clone(), reference.to_owned(), digest.to_string());
    let known = db.read(|txn| txn.get(INGESTS, (scope.namespace.as_str(), reference.as_str())))?;
    if known.is_none_or(|row| row.becomes == text) {
        return Ok(());
    }
    db.mutate(move |tx| {
        let key = (scope.namespace.as_str(), reference.as_str());
        let Some(mut row) = tx.get(INGESTS, key)? else { return Ok(()) };
        row.becomes.clone_from(&text);
        tx.put(INGESTS, key, row)
    })
    .await
}

/// Removes an ingest's row.
pub(super) fn forget(tx: &Tx<'_>, scope: &Scope, reference: &str) -> Result<()> {
    tx.remove(INGESTS.table, (scope.namespace.as_str(), reference))?;
    leases::drop_resource(tx, scope, "ingests", reference)
}

type Labels = BTreeMap<String, String>;

#[async_trait]
impl Writer for IngestWriter {
    async fn write(&mut self, data: Bytes) -> Result<()> {
        match &self.state {
            State::Shared(_) if data.is_empty() => Ok(()),
            State::Shared(shared) => {
                let shared = shared.clone();
                self.unshare(&shared, shared.size).await?.write(data).await
            }
            State::Own(_) | State::Done(_) => self.own()?.write(data).await,
        }
    }

    async fn status(&self) -> Result<Status> {
        match &self.state {
            State::Own(writer) => Ok(Status { reference: self.reference.clone(), ..writer.status().await? }),
            State::Shared(shared) => Ok(Status {
                reference: self.reference.clone(),
                offset: shared.size,
                total: shared.size,
                expected: Some(shared.digest.clone()),
                started_at: self.started,
                updated_at: self.started,
            }),
            State::Done(_) => Err(done()),
        }
    }

    fn file(&self) -> Option<std::fs::File> {
        match &self.state {
            State::Own(writer) => writer.file(),
            State::Shared(_) | State::Done(_) => None,
        }
    }

    async fn digest(&mut self) -> Result<Digest> {
        match &mut self.state {
            State::Own(writer) => writer.digest().await,
            State::Shared(shared) => Ok(shared.digest.clone()),
            State::Done(digest) => digest.clone().ok_or_else(done),
        }
    }

    async fn truncate(&mut self, size: u64) -> Result<()> {
        match &self.state {
            State::Shared(shared) => {
                let shared = shared.clone();
                self.unshare(&shared, size.min(shared.size)).await?;
                Ok(())
            }
            State::Own(_) | State::Done(_) => self.own()?.truncate(size).await,
        }
    }

    async fn commit(&mut self, size: u64, expected: Option<Digest>, labels: Labels) -> Result<()> {
        validate(&labels)?;
        match &self.state {
            State::Shared(shared) => {
                let shared = shared.clone();
                self.commit_shared(shared, size, expected, labels).await
            }
            State::Own(_) | State::Done(_) => self.commit_own(size, expected, labels).await,
        }
    }
}
