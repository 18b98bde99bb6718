//! What the daemon tells about itself: plugins, what its runtimes can do, what goes away.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod daemon;

use std::os::unix::fs::PermissionsExt;

use api::ProtoAny;
use api::containerd::services::introspection::v1 as wire;
use api::containerd::services::tasks::v1::CreateTaskRequest;
use api::containerd::types::{RuntimeInfo, RuntimeRequest};
use daemon::{Home, request};
use grpc::introspection::introspection_client::IntrospectionClient;
use grpc::tasks::tasks_client::TasksClient;
use prost::Message;
use tonic::{Code, Request};

fn info(kind: &str, id: &str, options: Option<(&str, Vec<u8>)>) -> Request<wire::PluginInfoRequest> {
    let options = options.map(|(type_url, value)| ProtoAny { type_url: type_url.into(), value });
    Request::new(wire::PluginInfoRequest { r#type: kind.into(), id: id.into(), options })
}

/// A shim that answers `-info` with what it was asked, as its options.
fn shim(home: &Home) -> String {
    let path = home.path("shim");
    // Tag 1 (name) with 1 byte, tag 3 (options): an Any's bytes follow from stdin, at most 127 of them.
    let script = "#!/bin/sh\n[ \"$*\" = -info ] || exit 3\ncat > $0.in\nlen=$(wc -c < $0.in)\n\
                  printf \"\\012\\001x\\032\\\\$(printf %o $len)\"\ncat $0.in\n";
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_runtime_is_asked_what_it_can_do() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = IntrospectionClient::new(daemon.channel().await);
    let options = ProtoAny { type_url: "a.B".into(), value: vec![1, 2, 3] };
    let asked = RuntimeRequest { runtime_path: shim(&home), options: Some(options.clone()) };
    let task = ("io.containerd.runtime.v2", "task");
    let query = |value| info(task.0, task.1, Some(("containerd.types.RuntimeRequest", value)));
    let answer = client.plugin_info(query(asked.encode_to_vec())).await.unwrap().into_inner();
    assert_eq!(answer.plugin.unwrap().id, "task");
    let extra = answer.extra.unwrap();
    assert_eq!(extra.type_url, "containerd.types.RuntimeInfo");
    let told = RuntimeInfo::decode(extra.value.as_slice()).unwrap();
    assert_eq!((told.name.as_str(), told.options), ("x", Some(options)));

    let absent = RuntimeRequest { runtime_path: "/absent/shim".into(), options: None };
    let status = client.plugin_info(query(absent.encode_to_vec())).await.unwrap_err();
    assert_eq!(
        status.message(),
        "failed to resolve runtime path: invalid custom binary path: stat /absent/shim: no such file or directory"
    );
    let fails = RuntimeRequest { runtime_path: "/bin/false".into(), options: None };
    let status = client.plugin_info(query(fails.encode_to_vec())).await.unwrap_err();
    assert_eq!(status.message(), "failed to run [/bin/false -info]: exit status 1 (stderr: \"\")");
}

#[tokio::test]
async fn what_a_plugin_does_not_tell_is_said() {
    let home = Home::new();
    let daemon = home.start().await;
    let mut client = IntrospectionClient::new(daemon.channel().await);
    let request_type = || Some(("containerd.types.RuntimeRequest", Vec::new()));
    for (query, code, words) in [
        (info("a", "b", None), Code::NotFound, "plugin a.b not found: not found"),
        (
            info("io.containerd.snapshotter.v1", "native", request_type()),
            Code::Unimplemented,
            "plugin does not provided extra information: not implemented",
        ),
        (
            info("io.containerd.runtime.v2", "task", Some(("x.Y", Vec::new()))),
            Code::Unknown,
            "failed to unmarshal plugin info Options: type with url x.Y: not found",
        ),
    ] {
        let status = client.plugin_info(query).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (code, words));
    }
    let plain = client.plugin_info(info("io.containerd.snapshotter.v1", "native", None)).await.unwrap();
    assert!(plain.into_inner().extra.is_none());
}

#[tokio::test]
async fn deprecated_options_are_told_with_their_last_use() {
    let home = Home::new();
    let daemon = home.start().await;
    let ids = async || -> Vec<String> {
        let mut client = IntrospectionClient::new(daemon.channel().await);
        let server = client.server(Request::new(())).await.unwrap().into_inner();
        assert!(server.deprecations.iter().all(|it| it.last_occurrence.is_some() && !it.message.is_empty()));
        server.deprecations.into_iter().map(|it| it.id).collect()
    };
    let wanted = "io.containerd.deprecation/runc-options-task-api-version";
    assert!(!ids().await.iter().any(|id| id == wanted));
    // Field 13 of containerd.runc.v1.Options.
    let options = ProtoAny { type_url: "containerd.runc.v1.Options".into(), value: vec![13 << 3, 3] };
    let create =
        CreateTaskRequest { container_id: "none".into(), options: Some(options), ..Default::default() };
    TasksClient::new(daemon.channel().await).create(request(create)).await.unwrap_err();
    assert!(ids().await.iter().any(|id| id == wanted));
}
