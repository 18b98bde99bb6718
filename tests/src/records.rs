//! All records that a pull can make or leave in a namespace, as the API tells of them: images, blobs, ingests, snapshots,
//! leases. A program compares those of two daemons, or of two moments, entry by entry.
//!
//! Of times only whether there are any is kept.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use api::containerd::services::content::v1 as content;
use api::containerd::services::images::v1 as images;
use api::containerd::services::leases::v1 as leases;
use api::containerd::services::snapshots::v1 as snapshots;
use grpc::content::content_client::ContentClient;
use grpc::images::images_client::ImagesClient;
use grpc::leases::leases_client::LeasesClient;
use grpc::snapshots::snapshots_client::SnapshotsClient;

use crate::rpc::{Labels, SNAPSHOTTER};
use crate::{Api, Daemon};

/// What a record says, by field.
pub type Record = BTreeMap<String, String>;

/// Records by kind and name: `blob sha256:...`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(pub BTreeMap<String, Record>);

impl Records {
    /// Those of the daemon's namespace, after a collection.
    pub fn take(daemon: &Daemon) -> Self {
        daemon.collect_garbage();
        Self::look(daemon)
    }

    /// Those of the daemon's namespace as they are.
    ///
    /// # Panics
    /// If the daemon does not list them.
    pub fn look(daemon: &Daemon) -> Self {
        let (api, mut all) = (daemon.api(), Self::default());
        all.images(&api);
        all.blobs(&api);
        all.ingests(&api);
        all.snapshots(&api);
        all.leases(&api);
        all
    }

    fn add(&mut self, kind: &str, name: &str, fields: &[(&str, String)], labels: Labels) {
        let fields = fields.iter().map(|(field, value)| ((*field).to_owned(), value.clone()));
        let labels = labels.into_iter().map(|(key, value)| (format!("label {key}"), value));
        self.0.insert(format!("{kind} {name}"), fields.chain(labels).collect());
    }

    fn images(&mut self, api: &Api) {
        let request = api.request(images::ListImagesRequest::default());
        let list = api.call(ImagesClient::new(api.channel()).list(request)).expect("images");
        for image in list.images {
            let target = image.target.unwrap_or_default();
            let annotations = format!("{:?}", target.annotations);
            let fields = [
                ("target", target.digest),
                ("media type", target.media_type),
                ("size", target.size.to_string()),
                ("annotations", annotations),
                ("created", image.created_at.is_some().to_string()),
                ("updated", image.updated_at.is_some().to_string()),
            ];
            self.add("image", &image.name, &fields, image.labels);
        }
    }

    fn blobs(&mut self, api: &Api) {
        let request = api.request(content::ListContentRequest::default());
        let parts = api.call(ContentClient::new(api.channel()).list(request)).expect("content");
        for info in api.drain(parts).expect("content").into_iter().flat_map(|part| part.info) {
            let fields = [
                ("size", info.size.to_string()),
                ("created", info.created_at.is_some().to_string()),
                ("updated", info.updated_at.is_some().to_string()),
            ];
            self.add("blob", &info.digest, &fields, info.labels);
        }
    }

    fn ingests(&mut self, api: &Api) {
        let request = api.request(content::ListStatusesRequest::default());
        let list = api.call(ContentClient::new(api.channel()).list_statuses(request)).expect("ingests");
        for status in list.statuses {
            let fields = [
                ("offset", status.offset.to_string()),
                ("total", status.total.to_string()),
                ("expected", status.expected),
            ];
            self.add("ingest", &status.r#ref, &fields, Labels::new());
        }
    }

    fn snapshots(&mut self, api: &Api) {
        let snapshotter = SNAPSHOTTER.to_owned();
        let request = snapshots::ListSnapshotsRequest { snapshotter, ..Default::default() };
        let parts = api.call(SnapshotsClient::new(api.channel()).list(api.request(request)));
        for info in api.drain(parts.expect("snapshots")).expect("snapshots").into_iter().flat_map(|p| p.info)
        {
            let fields = [
                ("kind", format!("{:?}", info.kind())),
                ("parent", info.parent),
                ("created", info.created_at.is_some().to_string()),
                ("updated", info.updated_at.is_some().to_string()),
            ];
            self.add("snapshot", &info.name, &fields, info.labels);
        }
    }

    fn leases(&mut self, api: &Api) {
        let request = api.request(leases::ListRequest::default());
        let list = api.call(LeasesClient::new(api.channel()).list(request)).expect("leases");
        for lease in list.leases {
            let request = api.request(leases::ListResourcesRequest { id: lease.id.clone() });
            let held = api.call(LeasesClient::new(api.channel()).list_resources(request));
            // It may have gone meanwhile.
            let held = held.map(|answer| answer.resources).unwrap_or_default();
            let mut held: Vec<String> =
                held.into_iter().map(|one| format!("{} {}", one.r#type, one.id)).collect();
            held.sort();
            self.add("lease", &lease.id, &[("holds", held.join(", "))], lease.labels);
        }
    }

    /// How many bytes of content there are, those of unfinished ingests included.
    pub fn bytes(&self) -> u64 {
        let field = |(name, record): (&String, &Record)| match name.split(' ').next() {
            Some("blob") => record["size"].parse().unwrap_or(0),
            Some("ingest") => record["offset"].parse().unwrap_or(0),
            _ => 0,
        };
        self.0.iter().map(field).sum()
    }

    /// The names of those of a kind.
    pub fn of(&self, kind: &str) -> Vec<&str> {
        self.0.keys().filter_map(|name| name.strip_prefix(kind)?.strip_prefix(' ')).collect()
    }

    /// The same, but for those fields of records of a kind that begin so.
    #[must_use]
    pub fn without(mut self, kind: &str, field: &str) -> Self {
        for (_, record) in self.0.iter_mut().filter(|(name, _)| name.split(' ').next() == Some(kind)) {
            record.retain(|known, _| !known.starts_with(field));
        }
        self
    }

    /// Says, line by line, what differs; nothing if all is equal.
    pub fn differences(&self, other: &Self) -> String {
        let mut text = String::new();
        let names: BTreeSet<&String> = self.0.keys().chain(other.0.keys()).collect();
        for name in names {
            match (self.0.get(name), other.0.get(name)) {
                (Some(a), Some(b)) if a == b => {}
                (Some(a), Some(b)) => {
                    let fields: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
                    for field in fields.into_iter().filter(|field| a.get(*field) != b.get(*field)) {
                        let _ = writeln!(text, "{name}: {field}: {:?} and {:?}", a.get(field), b.get(field));
                    }
                }
                (a, _) => {
                    let who = if a.is_some() { "first" } else { "second" };
                    let _ = writeln!(text, "{name}: only in the {who}");
                }
            }
        }
        text
    }
}
