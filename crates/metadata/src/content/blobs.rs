//! Who still needs a blob, and removing one that nobody does.

use types::{Digest, Error, Result, Scope, crash};

use std::ops::ControlFlow;

use crate::db::Db;
use crate::leases;
use crate::schema::{BLOB_HOLDERS, INGESTS};
use crate::tx::{Counts, NEXT, Source};

/// The name of a digest's lock: held from looking whether a blob is there until a row says so, and while it is removed.
pub(crate) fn blob_lock(digest: &str) -> String {
    format!("blob {digest}")
}

/// The name of an ingest's lock: held while it is made, and while it is dropped. Taken before a digest's lock.
pub(crate) fn ingest_lock(scope: &Scope, reference: &str) -> String {
    format!("ingest {}/{reference}", scope.namespace)
}

/// Whether a namespace has the blob, or an ingest shares it.
fn needed(txn: &impl Source, digest: &str) -> Result<bool> {
    let mut needed = false;
    txn.scan_raw(BLOB_HOLDERS, (digest, ""), |key, ()| {
        needed = key.0 == digest;
        Ok(ControlFlow::Break(()))
    })?;
    if needed {
        return Ok(true);
    }
    // Ingests are few.
    txn.scan(
        INGESTS,
        ("", ""),
        |_| true,
        |_, row| {
            if row.shares == digest {
                needed = true;
                return Ok(ControlFlow::Break(()));
            }
            NEXT
        },
    )?;
    Ok(needed)
}

impl Db {
    /// Takes a blob from a namespace, and removes it if that was the last one.
    pub(crate) async fn delete_blob(&self, scope: &Scope, digest: &Digest) -> Result<()> {
        let _held = self.inner.locks.hold(&blob_lock(digest.as_str())).await;
        let (scope, text) = (scope.clone(), digest.to_string());
        let last = self
            .mutate(move |tx| {
                let ns = scope.namespace.as_str();
                if !crate::gc::remove_blob(tx, ns, &text)? {
                    return Err(Error::not_found(format!("content digest {text}: not found")));
                }
                tx.count_as(Counts::Deletion);
                leases::drop_resource(tx, &scope, "content", &text)?;
                Ok(!needed(tx, &text)?)
            })
            .await?;
        crash::point("blob-row-deleted");
        if last { self.remove_blob(digest).await } else { Ok(()) }
    }

    /// Removes a blob that nobody needs any more; leaves any other alone. An empty text is no blob.
    pub(crate) async fn release_text(&self, digest: &str) -> Result<()> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(()) };
        let _held = self.inner.locks.hold(&blob_lock(digest.as_str())).await;
        self.release(&digest).await
    }

    /// As [`Db::release_text`], for a caller that holds the digest's lock.
    pub(crate) async fn release(&self, digest: &Digest) -> Result<()> {
        if self.read(|txn| needed(txn, digest.as_str()))? {
            return Ok(());
        }
        self.remove_blob(digest).await
    }

    async fn remove_blob(&self, digest: &Digest) -> Result<()> {
        match self.inner.content.delete(digest).await {
            Err(error) if !error.is_not_found() => Err(error),
            _ => Ok(()),
        }
    }
}
