//! The protocol's texts are our own; its facts must be upstream's: every name, number, type, label, oneof and JSON name
//! of what we have, and every method's messages and streams. What we do not have stands in [`ABSENT`].
//!
//! Upstream's texts are read from Go's module cache, as pinned in tests/reference; nothing is downloaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};

/// What upstream has and we have not, by the beginning of its name, and why.
const ABSENT: [(&str, &str); 5] = [
    ("containerd.types.fieldpath", "an option of Go's code generator"),
    ("containerd.task.v2", "v3's messages under an older name: `runtime` and `shim` speak both"),
    ("containerd.runtime.sandbox.v1.UpdateSandbox", "used by no call"),
    ("ttrpc.StringList", "used by nothing"),
    (" .Status", "a stand-in for google.rpc.Status in ttrpc's text"),
];

/// Facts by name: what is compared.
type Facts = BTreeMap<String, String>;

#[test]
fn our_protocol_is_upstreams_field_by_field() {
    let Some(upstream) = module("github.com/containerd/containerd/api") else { return };
    let ours_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/api/proto");
    let ours = facts(&compile(&ours_dir, &ours_dir));
    let mut theirs = facts(&compile(&upstream, &ours_dir));
    for (module_path, below) in [
        ("github.com/containerd/ttrpc", "request.proto"),
        ("github.com/containerd/cgroups/v3", "cgroup1/stats/metrics.proto"),
        ("github.com/containerd/cgroups/v3", "cgroup2/stats/metrics.proto"),
        ("github.com/containerd/nri", "pkg/api/api.proto"),
        ("k8s.io/cri-api", "pkg/apis/runtime/v1/api.proto"),
    ] {
        let Some(dir) = module(module_path) else { return };
        let set = protox::compile([dir.join(below)], [dir]).expect("upstream's texts compile");
        theirs.extend(facts(&set));
    }
    for fact in theirs.values_mut() {
        *fact = fact.replace(" .Status ", " .google.rpc.Status ");
    }
    let wrong = wrong(&ours, &theirs);
    assert!(wrong.is_empty(), "{} facts differ\n{}", wrong.len(), wrong.join("\n"));
    assert!(ours.len() > 900, "only {} facts were compared", ours.len());
}

fn wrong(ours: &Facts, theirs: &Facts) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, fact) in theirs {
        let absent = ABSENT.iter().any(|(start, _)| name.contains(start));
        match ours.get(name) {
            None if absent => {}
            None => wrong.push(format!("not there: {name}: {fact}")),
            Some(_) if absent => wrong.push(format!("said to be absent, but there: {name}")),
            Some(our) if our != fact => wrong.push(format!("{name}: ours {our}, theirs {fact}")),
            Some(_) => {}
        }
    }
    let invented = ours.keys().filter(|name| !theirs.contains_key(*name) && !name.contains("google.rpc"));
    wrong.extend(invented.map(|name| format!("not upstream's: {name}")));
    wrong
}

/// The directory of a module in Go's cache.
fn module(path: &str) -> Option<PathBuf> {
    let pins = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/containerd");
    let mut go = Command::new("go");
    go.args(["list", "-m", "-f", "{{.Dir}}", path]).current_dir(pins);
    go.env("GOPROXY", "off").env("GOFLAGS", "-mod=readonly").env("GOTOOLCHAIN", "local");
    let dir = go.output().ok().map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
    let dir = dir.filter(|dir| !dir.is_empty()).map(PathBuf::from);
    if dir.is_none() {
        eprintln!(
            "skipped: {path} is not in Go's module cache; `cargo xtask reference` fetches it where Go is"
        );
    }
    dir
}

fn compile(dir: &Path, google: &Path) -> FileDescriptorSet {
    let mut files = Vec::new();
    collect(dir, &mut files);
    files.sort();
    protox::compile(&files, [dir, google]).unwrap_or_else(|error| panic!("{}: {error:?}", dir.display()))
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of texts").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "proto") {
            into.push(path);
        }
    }
}

fn facts(set: &FileDescriptorSet) -> Facts {
    let mut facts = Facts::new();
    // What is the project's own has no counterpart.
    let apart =
        |package: &str| package.starts_with("google.protobuf") || package.starts_with("containerdrs.");
    for file in set.file.iter().filter(|file| !apart(file.package())) {
        let package = file.package();
        for message in &file.message_type {
            add_message(package, message, &mut facts);
        }
        for enumeration in &file.enum_type {
            add_enum(package, enumeration, &mut facts);
        }
        for service in &file.service {
            add_service(package, service, &mut facts);
        }
    }
    facts
}

fn add_message(scope: &str, message: &DescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", message.name());
    facts.insert(format!("message {name}"), String::new());
    for field in &message.field {
        let oneof = field.oneof_index.map(|index| message.oneof_decl[index as usize].name());
        let fact = format!(
            "{} {:?} {:?} {} json {} oneof {}",
            field.number(),
            field.r#type(),
            field.label(),
            field.type_name(),
            field.json_name(),
            oneof.unwrap_or("-"),
        );
        facts.insert(format!("field {name}.{}", field.name()), fact);
    }
    for inner in &message.nested_type {
        add_message(&name, inner, facts);
    }
    for enumeration in &message.enum_type {
        add_enum(&name, enumeration, facts);
    }
}

fn add_enum(scope: &str, enumeration: &EnumDescriptorProto, facts: &mut Facts) {
    let name = format!("{scope}.{}", enumeration.name());
    for value in &enumeration.value {
        facts.insert(format!("value {name}.{}", value.name()), value.number().to_string());
    }
}

fn add_service(scope: &str, service: &ServiceDescriptorProto, facts: &mut Facts) {
    for method in &service.method {
        let streams =
            |streaming: bool, message: &str| format!("{}{message}", if streaming { "stream " } else { "" });
        let fact = format!(
            "{} -> {}",
            streams(method.client_streaming(), method.input_type()),
            streams(method.server_streaming(), method.output_type()),
        );
        facts.insert(format!("method {scope}.{}/{}", service.name(), method.name()), fact);
    }
}
