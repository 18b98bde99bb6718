//! `ctr content`.

use std::io::Read;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use clap::Subcommand;
use content::{Store, WriterOptions};
use types::content::Info;
use types::fields::FieldPaths;
use types::filters::Filters;
use types::{Digest, Error, Labels, Result};

use super::{print, refused};
use crate::cli::Globals;
use crate::client::Client;
use crate::flags::{self, Words};
use crate::{go, log};

pub mod check;
mod edit;
mod fetch;
mod object;
mod prune;

/// `ctr content ...`.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Display active transfers
    Active {
        /// Total timeout for fetch
        #[arg(long, short, env = "CONTAINERD_FETCH_TIMEOUT", value_parser = go::duration::parse, default_value = "0")]
        timeout: Duration,
        /// Path to content store root
        #[arg(long, default_value = "/tmp/content")]
        root: String,
        #[command(flatten)]
        filter: Words,
    },
    /// Check that blobs and unpacked layers are whole, in all namespaces
    Check(check::Flags),
    /// Permanently delete one or more blobs
    #[command(visible_aliases = ["del", "remove", "rm"])]
    Delete(Words),
    /// Edit a blob and return a new digest
    Edit(edit::Flags),
    /// Fetch all content for an image into containerd
    Fetch(Box<fetch::Flags>),
    /// Retrieve objects from a remote
    FetchObject(object::Flags),
    /// Retrieve blobs from a remote
    FetchBlob(object::BlobFlags),
    /// Get the data for an object
    Get(Words),
    /// Accept content into the store
    Ingest {
        /// Validate against provided size
        #[arg(long, default_value_t = 0)]
        expected_size: u64,
        /// Verify content against expected digest
        #[arg(long, default_value = "")]
        expected_digest: String,
        #[command(flatten)]
        key: Words,
    },
    /// List all blobs in the store
    #[command(visible_alias = "ls")]
    List {
        /// Print only the blob digest
        #[arg(long, short)]
        quiet: bool,
        #[command(flatten)]
        filters: Words,
    },
    /// Prunes content from the content store
    #[command(subcommand)]
    Prune(prune::Command),
    /// Push an object to a remote
    PushObject(object::Flags),
    /// Add labels to content
    Label(Words),
}

/// Runs a command.
pub async fn run(globals: &Globals, command: Command) -> Result<()> {
    match command {
        Command::Active { filter, .. } => active(&Client::open(globals)?, filter.first()).await,
        Command::Check(flags) => check::run(globals, flags).await.map(drop),
        Command::Delete(digests) => delete(&Client::open(globals)?, &digests.words).await,
        Command::Edit(flags) => edit::run(globals, flags).await,
        Command::Fetch(flags) => fetch::run(globals, &flags).await,
        Command::FetchObject(flags) => object::fetch(globals, &flags).await,
        Command::FetchBlob(flags) => object::fetch_blobs(globals, &flags).await,
        Command::PushObject(flags) => object::push(globals, &flags).await,
        Command::Prune(command) => prune::run(globals, command).await,
        Command::Get(digests) => get(globals, go::digest(digests.first())?).await,
        Command::Ingest { expected_size, expected_digest, key } => {
            let expected = Some(expected_digest).filter(|digest| !digest.is_empty());
            let expected = expected.map(|digest| go::digest(&digest)).transpose()?;
            if key.first().is_empty() {
                return refused("must specify a transaction reference");
            }
            let options = WriterOptions { reference: key.first().into(), total: expected_size, expected };
            ingest(&Client::open(globals)?, options).await
        }
        Command::List { quiet, filters } => list(&Client::open(globals)?, quiet, &filters.words).await,
        Command::Label(words) => label(&Client::open(globals)?, &words).await,
    }
}

async fn active(client: &Client, filter: &str) -> Result<()> {
    let mut table = go::Columns::tabs();
    table.line("REF\tSIZE\tAGE\t");
    for ingest in client.content().list_statuses(&[filter.to_owned()]).await? {
        let size = go::size::decimal(ingest.offset);
        table.line(format!("{}\t{size}\t{}\t", ingest.reference, age(ingest.started_at)));
    }
    print(table.finish())
}

async fn delete(client: &Client, digests: &[String]) -> Result<()> {
    let store = client.content();
    let mut failed = None;
    for text in digests {
        let deleted = match go::digest(text) {
            Ok(digest) => store.delete(&digest).await,
            Err(error) => Err(error),
        };
        match deleted {
            Ok(()) => print(format!("{text}\n"))?,
            Err(error) if error.is_not_found() => {}
            Err(error) => {
                log::error(&format!("could not delete {text}"), Some(&error));
                failed.get_or_insert(error);
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn get(globals: &Globals, digest: Digest) -> Result<()> {
    let reader = Client::open(globals)?.content().reader(&digest).await?;
    let mut offset = 0;
    loop {
        let data = reader.read_at(offset, 1 << 20).await?;
        if data.is_empty() {
            return Ok(());
        }
        offset += data.len() as u64;
        print(&data)?;
    }
}

async fn ingest(client: &Client, options: WriterOptions) -> Result<()> {
    let (size, expected) = (options.total, options.expected.clone());
    let mut writer = match client.content().writer(options).await {
        Err(error) if error.is_already_exists() => return Ok(()),
        writer => writer?,
    };
    if writer.status().await?.offset > 0 {
        // Stdin cannot be rewound to where an earlier try ended.
        writer.truncate(0).await?;
    }
    let mut input = std::io::stdin().lock();
    let mut buffer = vec![0; 1 << 20];
    let mut copied = 0;
    loop {
        let read = input.read(&mut buffer).map_err(|e| go::path_error("read", "/dev/stdin", e))?;
        if read == 0 {
            break;
        }
        copied += read as u64;
        writer.write(Bytes::copy_from_slice(&buffer[..read])).await?;
    }
    if copied < size {
        let text = format!("short read: expected {size} bytes but got {copied}: unexpected EOF");
        return Err(Error::data_loss(text));
    }
    match writer.commit(size, expected, Labels::new()).await {
        Err(error) if error.is_already_exists() => Ok(()),
        committed => committed,
    }
}

async fn list(client: &Client, quiet: bool, filters: &[String]) -> Result<()> {
    let mut found: Vec<Info> = Vec::new();
    let mut collect = |info| {
        found.push(info);
        Ok(())
    };
    client.content().walk(&Filters::parse(filters)?, &mut collect).await?;
    if quiet {
        return print(found.iter().map(|info| format!("{}\n", info.digest)).collect::<String>());
    }
    let mut table = go::Columns::tabs();
    table.line("DIGEST\tSIZE\tAGE\tLABELS");
    for info in found {
        let (size, labels) = (go::size::decimal(info.size), go::labels_or_dash(&info.labels));
        table.line(format!("{}\t{size}\t{}\t{labels}", info.digest, age(info.created_at)));
    }
    print(table.finish())
}

async fn label(client: &Client, words: &Words) -> Result<()> {
    let store = client.content();
    let digest = go::digest(words.first())?;
    let labels = flags::labels(words.tail());
    let info = if labels.is_empty() {
        store.info(&digest).await?
    } else {
        let fields = FieldPaths(labels.keys().map(|key| format!("labels.{key}")).collect());
        let (created_at, updated_at) = (SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH);
        let labels = labels.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        store.update(Info { digest, size: 0, created_at, updated_at, labels }, &fields).await?
    };
    print(format!("{}\n", go::labels(&info.labels)))
}

fn age(since: SystemTime) -> String {
    go::duration::human(since.elapsed().unwrap_or_default())
}
