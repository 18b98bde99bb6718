//! Plugins that lie, hang, babble and fail: the protocol, with shell scripts for plugins.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scripts;

use std::fs;
use std::time::{Duration, Instant};

use cni::{Cni, Limits, Network, PluginError};
use serde_json::{Value, json};
use types::Class;

use crate::scripts::{Node, network};

/// Tells what it was asked in `DIR/log` and answers with a result in which it has added itself.
const WELL: &str = r#"printf '%s %s\n' "$CNI_COMMAND" "${0##*/}" >>"$DIR/log"
cat >"$DIR/${0##*/}.$CNI_COMMAND"; env >"$DIR/${0##*/}.env"
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'"$CNI_NETNS"'"}],
"ips":[{"interface":0,"address":"10.9.8.7/24"}]}'"#;

fn words(node: &Node) -> Vec<String> {
    node.read("log").lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn plugins_are_asked_in_order_and_backwards_with_what_was_said_before() {
    let node = Node::new(&[("a", WELL), ("b", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"}), json!({"type": "b", "capabilities": {"mac": true}})]);
    let mut at = node.attachment("c1");
    at.arguments = vec![("IgnoreUnknown".into(), "1".into()), ("K8S_POD_NAME".into(), "p".into())];
    at.capabilities = json!({"mac": "aa:bb:cc:dd:ee:ff", "ips": []}).as_object().unwrap().clone();
    let result = node.cni().add(&list, &at).await.unwrap();
    assert_eq!(result.current().ips[0].address.to_string(), "10.9.8.7/24");
    let asked = |file: &str| -> Value { serde_json::from_str(&node.read(file)).unwrap() };
    assert_eq!(asked("a.ADD"), json!({"type": "a", "name": "net", "cniVersion": "1.0.0"}));
    let wanted = json!({"type": "b", "name": "net", "cniVersion": "1.0.0", "capabilities": {"mac": true},
        "runtimeConfig": {"mac": "aa:bb:cc:dd:ee:ff"}, "prevResult": result.to_json().unwrap()});
    assert_eq!(asked("b.ADD"), wanted);
    let environment = node.read("a.env");
    for line in [
        "CNI_COMMAND=ADD",
        "CNI_CONTAINERID=c1",
        "CNI_IFNAME=eth0",
        "CNI_NETNS=/proc/self/ns/net",
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=p",
        &format!("CNI_PATH={}", node.bin().display()),
    ] {
        assert!(environment.lines().any(|found| found == line), "{line} is not in\n{environment}");
    }
    // Who removes knows nothing but the name: arguments and result come from the cache.
    let bare = cni::Attachment { netns: String::new(), ..node.attachment("c1") };
    node.cni().del(&list, &bare).await.unwrap();
    assert_eq!(words(&node), ["ADD a", "ADD b", "DEL b", "DEL a"]);
    assert_eq!(asked("b.DEL"), wanted);
    assert!(node.read("a.env").contains("\nCNI_ARGS=IgnoreUnknown=1;K8S_POD_NAME=p\n"));
    assert!(node.read("a.env").contains("\nCNI_NETNS=\n"));
    node.leaves_nothing();
    node.cni().del(&list, &bare).await.unwrap();
}

#[tokio::test]
async fn removal_uses_the_configuration_of_the_addition_unless_its_plugins_are_gone() {
    let node = Node::new(&[("old", WELL), ("new", WELL)]).await;
    let (old, new) =
        (network("1.0.0", &[json!({"type": "old"})]), network("1.0.0", &[json!({"type": "new"})]));
    let at = node.attachment("c1");
    node.cni().add(&old, &at).await.unwrap();
    node.cni().del(&new, &at).await.unwrap();
    assert_eq!(words(&node), ["ADD old", "DEL old"]);
    node.cni().add(&old, &at).await.unwrap();
    fs::remove_file(node.bin().join("old")).unwrap();
    node.cni().del(&new, &at).await.unwrap();
    assert_eq!(words(&node)[3..], ["DEL new"]);
    node.leaves_nothing();
}

#[tokio::test]
async fn an_addition_that_fails_is_taken_back_and_its_error_told() {
    let fails = r#"printf '%s %s\n' "$CNI_COMMAND" b >>"$DIR/log"; [ "$CNI_COMMAND" = DEL ] && exit 0
echo '{"cniVersion":"1.0.0","code":11,"msg":"no address","details":"all are taken"}'; exit 1"#;
    let node = Node::new(&[("a", WELL), ("b", fails), ("c", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"}), json!({"type": "b"}), json!({"type": "c"})]);
    let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err();
    let wanted = r#"plugin type="b" failed (add): no address; all are taken"#;
    assert_eq!((error.to_string().as_str(), error.class()), (wanted, Class::Unavailable));
    let causes = std::iter::successors(std::error::Error::source(&error), |cause| cause.source());
    let stated = causes.into_iter().find_map(|cause| cause.downcast_ref::<PluginError>()).unwrap();
    assert_eq!((stated.code, stated.msg.as_str()), (11, "no address"));
    assert_eq!(words(&node), ["ADD a", "ADD b", "DEL c", "DEL b", "DEL a"]);
    node.leaves_nothing();
}

#[tokio::test]
async fn a_removal_that_fails_stops_there_and_goes_on_when_it_is_done_again() {
    let once = r#"printf '%s %s\n' "$CNI_COMMAND" b >>"$DIR/log"; [ "$CNI_COMMAND" = ADD ] && echo '{}'
[ "$CNI_COMMAND" = DEL ] || exit 0; [ -e "$DIR/again" ] || { touch "$DIR/again"; echo busy >&2; exit 1; }"#;
    let node = Node::new(&[("a", WELL), ("b", once)]).await;
    let list = network("1.0.0", &[json!({"type": "a"}), json!({"type": "b"})]);
    let at = node.attachment("c1");
    node.cni().add(&list, &at).await.unwrap();
    let error = node.cni().del(&list, &at).await.unwrap_err().to_string();
    let wanted = r#"plugin type="b" failed (delete): netplugin failed: "busy\n""#;
    assert_eq!(error, wanted);
    assert_eq!(node.entries(), 1);
    node.cni().del(&list, &at).await.unwrap();
    assert_eq!(words(&node), ["ADD a", "ADD b", "DEL b", "DEL b", "DEL a"]);
    node.leaves_nothing();
}

#[tokio::test]
async fn failures_have_the_words_of_libcni() {
    for (script, wanted) in [
        ("exit 3", "netplugin failed with no error message: exit status: 3"),
        ("echo oops >&2; exit 1", r#"netplugin failed: "oops\n""#),
        ("echo oops; exit 1", "netplugin failed but error parsing its diagnostic message \"oops\\n\": "),
        ("kill -9 $$", "netplugin failed with no error message: signal: 9 (SIGKILL)"),
        ("exit 0", "failed to unmarshal raw result: "),
        ("echo garbage", "failed to unmarshal raw result: "),
        (r#"echo '{"cniVersion":"7.0.0"}'"#, "unsupported CNI result version \"7.0.0\""),
        (r#"printf '%s' '{"interfaces":[{"name":"a\nb"}]}'"#, "a control character in the result: "),
        ("exec <&-; exit 1", "exit status: 1"),
    ] {
        let on_add = format!("[ $CNI_COMMAND = ADD ] || exit 0; {script}");
        let node = Node::new(&[("a", &on_add)]).await;
        let list = network("1.0.0", &[json!({"type": "a", "padding": "x".repeat(200_000)})]);
        let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err().to_string();
        assert!(error.starts_with("plugin type=\"a\" failed (add): ") && error.contains(wanted), "{error}");
        node.leaves_nothing();
    }
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let hangs =
        r#"[ $CNI_COMMAND = ADD ] || exit 0; (sleep 1; touch "$DIR/mark") & echo '{}'; exec >&-; sleep 60"#;
    let node = Node::new(&[("a", hangs)]).await;
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let error = node.cni_with(limits).add(&list, &node.attachment("c1")).await.unwrap_err();
    assert_eq!(error.class(), Class::DeadlineExceeded);
    assert!(error.to_string().contains("did not end within 300ms and was killed"), "{error}");
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!node.has("mark"));
    node.leaves_nothing();
}

#[tokio::test]
async fn a_plugin_whose_caller_goes_away_is_killed_and_the_intent_stays() {
    let node = Node::new(&[(
        "a",
        r#"[ $CNI_COMMAND = ADD ] || exit 0; touch "$DIR/begun"; sleep 1; touch "$DIR/mark""#,
    )])
    .await;
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let cni = node.cni();
    let at = node.attachment("c1");
    tokio::select! {
        _ = cni.add(&list, &at) => panic!("it ended"),
        () = async { while !node.has("begun") { tokio::time::sleep(Duration::from_millis(10)).await } } => {}
    }
    tokio::time::sleep(Duration::from_millis(1200)).await;
    assert!(!node.has("mark"));
    assert_eq!(cni.attachments("c1").unwrap().len(), 1);
    cni.gc(&list, &[]).await.unwrap();
    node.leaves_nothing();
}

#[tokio::test]
async fn output_has_a_bound() {
    let much = "[ $CNI_COMMAND = ADD ] || exit 0; exec head -c 1073741824 /dev/zero";
    let loud = "[ $CNI_COMMAND = ADD ] || exit 0; head -c 100000000 /dev/zero >&2; echo '{}'";
    let node = Node::new(&[("a", much), ("b", loud)]).await;
    let begun = Instant::now();
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err();
    assert_eq!(error.class(), Class::ResourceExhausted);
    assert!(error.to_string().contains("printed more than 1048576 bytes"), "{error}");
    let list = network("1.0.0", &[json!({"type": "b"})]);
    node.cni().add(&list, &node.attachment("c1")).await.unwrap();
    assert!(begun.elapsed() < Limits::default().time);
}

#[tokio::test]
async fn a_child_that_holds_the_output_open_holds_nobody_up() {
    let node = Node::new(&[("a", "echo '{}'; sleep 5 & exit 0")]).await;
    let begun = Instant::now();
    let list = network("1.0.0", &[json!({"type": "a"})]);
    node.cni().add(&list, &node.attachment("c1")).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[tokio::test]
async fn nothing_is_run_under_a_name_that_is_none() {
    let node = Node::new(&[("a", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let refused = async |change: &dyn Fn(&mut cni::Attachment)| {
        let mut at = node.attachment("c1");
        change(&mut at);
        assert!(node.cni().add(&list, &at).await.is_err(), "{at:?}");
        assert!(node.cni().del(&list, &at).await.is_err(), "{at:?}");
        assert!(node.cni().check(&list, &at).await.is_err(), "{at:?}");
    };
    refused(&|at| at.container = "../c".into()).await;
    refused(&|at| at.container = String::new()).await;
    refused(&|at| at.interface = "eth 0".into()).await;
    refused(&|at| at.netns = "/proc\0".into()).await;
    refused(&|at| at.arguments = vec![("K".into(), "V;CNI_COMMAND=x".into())]).await;
    assert!(!node.has("log"));
}

#[tokio::test]
async fn a_plugin_is_a_file_in_the_directory_that_others_cannot_write() {
    use std::os::unix::fs::PermissionsExt;
    let node = Node::new(&[("a", WELL)]).await;
    fs::create_dir(node.bin().join("dir")).unwrap();
    for kind in ["none", "dir"] {
        let list = network("1.0.0", &[json!({"type": "a"}), json!({"type": kind})]);
        let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err().to_string();
        assert_eq!(error, format!("failed to find plugin {kind:?} in path [{}]", node.bin().display()));
    }
    fs::set_permissions(node.bin().join("a"), fs::Permissions::from_mode(0o777)).unwrap();
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err();
    assert_eq!(error.class(), Class::PermissionDenied);
    // Nothing was begun: programs are looked for before any runs.
    assert!(!node.has("log"));
    node.leaves_nothing();
    assert!(Network::parse(br#"{"name":"n","plugins":[{"type":"../bin/a"}]}"#).is_err());
}

#[tokio::test]
async fn a_container_that_took_the_name_of_a_dead_one_is_not_refused() {
    let node = Node::new(&[("a", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let at = node.attachment("c1");
    node.cni().add(&list, &at).await.unwrap();
    let later = cni::Attachment { netns: "/proc/thread-self/ns/net".into(), ..at };
    node.cni().add(&list, &later).await.unwrap();
    assert_eq!(words(&node), ["ADD a", "DEL a", "ADD a"]);
    node.cni().add(&list, &later).await.unwrap();
    assert_eq!(words(&node)[3..], ["ADD a"]);
}

#[tokio::test]
async fn what_can_be_asked_depends_on_the_version() {
    let node = Node::new(&[("a", WELL)]).await;
    let cni = node.cni();
    let at = node.attachment("c1");
    let of = |version| network(version, &[json!({"type": "a"})]);
    let error = cni.check(&of("0.3.1"), &at).await.unwrap_err().to_string();
    assert_eq!(error, "configuration version \"0.3.1\" does not support the CHECK command");
    cni.status(&of("1.0.0")).await.unwrap();
    cni.gc(&of("1.0.0"), &[]).await.unwrap();
    assert!(!node.has("log"));
    cni.add(&of("1.1.0"), &at).await.unwrap();
    cni.check(&of("1.1.0"), &at).await.unwrap();
    cni.status(&of("1.1.0")).await.unwrap();
    cni.gc(&of("1.1.0"), &[("c1".into(), "eth0".into())]).await.unwrap();
    assert_eq!(words(&node), ["ADD a", "CHECK a", "STATUS a", "GC a"]);
    let checked: Value = serde_json::from_str(&node.read("a.CHECK")).unwrap();
    assert_eq!(checked["prevResult"]["cniVersion"], "1.1.0");
    let collected: Value = serde_json::from_str(&node.read("a.GC")).unwrap();
    let claimed = json!([{"containerID": "c1", "ifname": "eth0"}]);
    assert_eq!(
        (&collected["cni.dev/valid-attachments"], &collected["cni.dev/attachments"]),
        (&claimed, &claimed)
    );
    cni.gc(&of("1.1.0"), &[]).await.unwrap();
    assert_eq!(words(&node)[4..], ["DEL a", "GC a"]);
    node.leaves_nothing();
}

#[tokio::test]
async fn before_0_4_a_removal_is_told_no_result() {
    let node = Node::new(&[("a", WELL)]).await;
    let list = network("0.3.1", &[json!({"type": "a"})]);
    let at = node.attachment("c1");
    node.cni().add(&list, &at).await.unwrap();
    node.cni().del(&list, &at).await.unwrap();
    assert!(!node.read("a.DEL").contains("prevResult"));
}

#[tokio::test]
async fn a_damaged_entry_keeps_nobody_from_removing() {
    let node = Node::new(&[("a", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"})]);
    let at = node.attachment("c1");
    for damage in [
        "",
        "{\"kind\":\"cniCacheV1\",\"config\":\"?\"}",
        "\0",
        r#"{"kind":"cniCacheV1","result":{"ips":7}}"#,
    ] {
        node.cni().add(&list, &at).await.unwrap();
        fs::write(node.dir().join("cache/results/net-c1-eth0"), damage).unwrap();
        node.cni().del(&list, &at).await.unwrap();
        assert!(node.read("log").ends_with("ADD a\nDEL a\n"), "{damage:?}");
        node.leaves_nothing();
    }
}

#[tokio::test]
async fn versions_are_told_by_the_plugin() {
    let says = |text: &str| format!("echo '{text}'");
    let node = Node::new(&[
        ("new", &says(r#"{"cniVersion":"1.1.0","supportedVersions":["0.4.0","1.0.0"]}"#)),
        ("second", &says(r#"{"cniVersion":"0.2.0"}"#)),
        ("first", r#"echo '{"code":4,"msg":"unknown CNI_COMMAND: VERSION"}'; exit 1"#),
        ("mute", "exit 0"),
        ("short", &says(r#"{"cniVersion":"1.0.0"}"#)),
    ])
    .await;
    let cni = node.cni();
    assert_eq!(cni.versions("new").await.unwrap(), ["0.4.0", "1.0.0"]);
    assert_eq!(cni.versions("second").await.unwrap(), ["0.1.0", "0.2.0"]);
    assert_eq!(cni.versions("first").await.unwrap(), ["0.1.0"]);
    assert!(cni.versions("mute").await.is_err() && cni.versions("short").await.is_err());
    let list = network("1.0.0", &[json!({"type": "new", "capabilities": {"mac": true, "ips": false}})]);
    assert_eq!(cni.validate(&list).await.unwrap(), ["mac"]);
    let list = network("0.3.1", &[json!({"type": "new"}), json!({"type": "none"})]);
    let error = cni.validate(&list).await.unwrap_err().to_string();
    assert!(
        error.starts_with("plugin new does not support config version \"0.3.1\"; failed to find"),
        "{error}"
    );
}

#[tokio::test]
async fn an_entry_that_cannot_be_written_ends_before_anything_is_done() {
    let node = Node::new(&[("a", WELL)]).await;
    let list = network("1.0.0", &[json!({"type": "a"})]);
    fs::write(node.dir().join("cache"), "a file").unwrap();
    let error = node.cni().add(&list, &node.attachment("c1")).await.unwrap_err().to_string();
    assert!(error.starts_with("failed to set network \"net\" cached result: "), "{error}");
    assert!(!node.has("log"));
    let _: Cni = node.cni();
}
