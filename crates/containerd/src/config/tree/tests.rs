use std::path::Path;

use super::*;

fn host() -> Host {
    Host { uid: 0, gid: 0, platform: "linux/amd64".into() }
}

fn read_files(files: &[(&str, &str)]) -> Result<Written> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    read(&dir.path().join(files[0].0))
}

fn written(files: &[(&str, &str)]) -> Table {
    read_files(files).unwrap().table
}

fn completed(text: &str) -> Complete {
    complete(read_files(&[("main", text)]).unwrap(), &host()).unwrap()
}

#[test]
fn imported_files_are_merged_as_upstream_merges_them() {
    let table = written(&[
        (
            "main",
            "version=4\nroot='/a'\noom_score=-5\nimports=['d/*.toml']\nrequired_plugins=['a.b']\n[debug]\nlevel='debug'\n\
             [plugins.'x.y']\nlist=[1,2]\nset=true\nword='w'\nnumber=5\n[plugins.'x.y'.deep]\nk=1\n\
             [timeouts]\na='7s'\nb='8s'\n[proxy_plugins.p]\ntype='snapshot'\naddress='/p'\nplatform='linux/arm64'",
        ),
        (
            "d/1.toml",
            "version=4\nroot=''\noom_score=0\nrequired_plugins=['a.b','c.d']\n[debug]\nlevel=''\nformat='json'\n\
             [plugins.'x.y']\nlist=[2,3]\nset=false\nword=''\nnumber=0\n[plugins.'x.y'.deep]\nl=2\n\
             [timeouts]\nb=''\n[proxy_plugins.p]\ntype='snapshot'\naddress='/q'",
        ),
        ("d/not", "version=9"),
    ]);
    assert_eq!(table["root"].as_str(), Some("/a"));
    assert_eq!(table["oom_score"].as_integer(), Some(-5));
    assert_eq!(table["required_plugins"].as_array().unwrap().len(), 2);
    assert_eq!(table["imports"].as_array().unwrap().len(), 2);
    assert_eq!(table["debug"]["level"].as_str(), Some("debug"));
    assert_eq!(table["debug"]["format"].as_str(), Some("json"));
    let plugin: Table = "list=[2,3]\nset=false\nword=''\nnumber=0\ndeep={k=1,l=2}".parse().unwrap();
    assert_eq!(table["plugins"]["x.y"], plugin.into());
    assert_eq!(table["timeouts"]["a"].as_str(), Some("7s"));
    assert_eq!(table["timeouts"]["b"].as_str(), Some(""));
    assert!(table["proxy_plugins"]["p"].get("platform").is_none());
}

#[test]
fn versions_that_nobody_understands_are_refused() {
    for (files, why) in [
        (&[("main", "version=5")][..], "equal to or less than `4`, got `5`"),
        (&[("main", "version=-1")], "got `-1`"),
        (&[("main", "version='4'")], "version must be an integer"),
        (&[("main", "version=4\nx=[")], "row 2 column"),
        (
            &[("main", "version=2\nimports=['b']"), ("b", "version=3")],
            "version 3 higher than root config version 2",
        ),
        (&[("main", "version=2\nimports=['b']")], "No such file"),
    ] {
        let error = read_files(files).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn files_that_import_each_other_are_read_once() {
    let table = written(&[
        ("a", "version=4\nimports=['b', 'a']\nroot='/a'"),
        ("b", "version=3\nimports=['a']\nstate='/b'"),
    ]);
    assert_eq!(table["state"].as_str(), Some("/b"));
}

#[test]
fn a_file_without_version_is_of_version_1_and_names_of_its_plugins_grow() {
    let written = read_files(&[(
        "main",
        "disabled_plugins=['cri','aufs','odd']\n[plugins.cgroups]\nno_prometheus=true\n[plugins.diff-service]\ndefault=['x']\n\
         [plugins.linux]\nshim='s'",
    )])
    .unwrap();
    let names: Vec<_> =
        written.table["disabled_plugins"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(
        names,
        ["io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.grpc.v1.odd"]
    );
    let plugins = written.table["plugins"].as_table().unwrap();
    assert_eq!(plugins["io.containerd.monitor.task.v1.cgroups"]["no_prometheus"].as_bool(), Some(true));
    assert!(plugins.contains_key("io.containerd.service.v1.diff-service"));
    assert!(plugins.contains_key("io.containerd.runtime.v1.linux"));
    let warnings = written.findings.warnings;
    assert_eq!(
        warnings.iter().filter(|warning| warning.contains("config migrate")).count(),
        1,
        "{warnings:?}"
    );
    assert!(warnings[0].starts_with("Ambiguous odd plugin"), "{warnings:?}");
}

#[test]
fn what_the_old_cri_section_said_does_not_replace_what_the_new_ones_say() {
    let table = written(&[(
        "main",
        "version=3\n[plugins.'io.containerd.grpc.v1.cri']\nenable_selinux=true\nstream_server_port='1'\n\
         sandbox_image='p'\n[plugins.'io.containerd.grpc.v1.cri'.cni]\nbin_dir='/b'\nconf_dir='/c'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd]\nsnapshotter='native'\n\
         [plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.x]\nsandbox_mode='shim'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nenable_selinux=false\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\nconf_dir='/new'",
    )]);
    let plugins = &table["plugins"];
    let runtime = &plugins["io.containerd.cri.v1.runtime"];
    assert_eq!(runtime["enable_selinux"].as_bool(), Some(false));
    assert_eq!(runtime["cni"], "bin_dirs=['/b']\nconf_dir='/new'".parse::<Table>().unwrap().into());
    assert_eq!(runtime["containerd"]["runtimes"]["x"]["sandboxer"].as_str(), Some("shim"));
    assert_eq!(
        plugins["io.containerd.grpc.v1.cri"],
        "stream_server_port='1'".parse::<Table>().unwrap().into()
    );
    let images = &plugins["io.containerd.cri.v1.images"];
    assert_eq!(images["snapshotter"].as_str(), Some("native"));
    assert_eq!(images["pinned_images"]["sandbox"].as_str(), Some("p"));
}

#[test]
fn the_listeners_of_version_3_become_plugins() {
    let table = written(&[(
        "main",
        "version=3\n[grpc]\naddress='/a'\nuid=5\ntcp_address='h:1'\ntcp_tls_cert='c'\nmax_recv_message_size=9\nnew=1\n\
         [debug]\nlevel='debug'\naddress='/d'\n[metrics]\naddress=''\n[plugins.'io.containerd.server.v1.debug']\naddress='/new'",
    )]);
    let server =
        |id: &str| table["plugins"].get(format!("io.containerd.server.v1.{id}")).map(ToString::to_string);
    assert_eq!(server("grpc").unwrap(), "{ address = \"/a\", gid = 0, max_recv_message_size = 9, uid = 5 }");
    assert_eq!(server("ttrpc").unwrap(), "{ address = \"/a.ttrpc\", gid = 0, uid = 5 }");
    assert_eq!(
        server("grpc-tcp").unwrap(),
        "{ address = \"h:1\", max_recv_message_size = 9, tls_cert = \"c\" }"
    );
    assert_eq!(server("debug").unwrap(), "{ address = \"/new\" }");
    assert_eq!(server("metrics"), None);
    assert_eq!(table["debug"]["level"].as_str(), Some("debug"));
    assert!(!table.contains_key("grpc"));
}

#[test]
fn gaps_are_filled_keys_found_in_any_case_and_times_printed_as_gos() {
    let tree = completed(
        "version=4\n[plugins.'io.containerd.gc.v1.scheduler']\nPause_Threshold=0\nschedule_delay='1500ms'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.Kata]\nruntime_type='k'\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\nSystemdCgroup=true\nNew=1\n\
         [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]\nplatform='linux'\n[timeouts]\n\
         'io.containerd.timeout.task.state'=''\nmine='5s'",
    );
    assert_eq!(tree.findings.warnings, Vec::<String>::new());
    let plugins = &tree.table["plugins"];
    let gc = &plugins["io.containerd.gc.v1.scheduler"];
    assert_eq!(gc["pause_threshold"].as_float(), Some(0.0));
    assert_eq!(gc["schedule_delay"].as_str(), Some("1.5s"));
    assert_eq!(gc["mutation_threshold"].as_integer(), Some(100));
    let runtimes = &plugins["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"];
    assert_eq!(runtimes["Kata"]["sandboxer"].as_str(), Some(""));
    assert!(runtimes["Kata"].get("options").is_none());
    assert_eq!(runtimes["runc"]["options"]["BinaryName"].as_str(), Some(""));
    assert_eq!(runtimes["runc"]["options"]["New"].as_integer(), Some(1));
    assert_eq!(runtimes["runc"]["runtime_type"].as_str(), Some("io.containerd.runc.v2"));
    let unpack = &plugins["io.containerd.transfer.v1.local"]["unpack_config"][0];
    assert_eq!(unpack["platform"].as_str(), Some("linux"));
    assert_eq!(tree.table["timeouts"]["io.containerd.timeout.task.state"].as_str(), Some("2s"));
    assert_eq!(tree.table["timeouts"]["mine"].as_str(), Some("5s"));
    assert_eq!(tree.changed.len(), 3);
}

#[test]
fn a_wrong_type_is_a_mistake_and_an_unknown_key_a_warning() {
    let tree = completed(
        "version=4\nroot=5\nnew=1\n[plugins]\n'io.containerd.internal.v1.opt'=5\n'un.known'=5\n\
         [plugins.'io.containerd.shim.v1.manager']\nenv=[5]\n[plugins.'io.containerd.gc.v1.scheduler']\nstartup_delay='soon'\n\
         [timeouts]\nx=5",
    );
    assert_eq!(tree.findings.warnings, ["Ignoring unknown key in TOML: new"]);
    assert_eq!(tree.findings.mistakes.len(), 5, "{:?}", tree.findings.mistakes);
    assert_eq!(tree.table["plugins"]["un.known"].as_integer(), Some(5));
}

#[test]
fn a_disabled_plugin_keeps_what_was_written_and_no_more() {
    let tree = completed(
        "version=4\ndisabled_plugins=['io.containerd.gc.v1.scheduler','io.containerd.internal.v1.opt']\n\
         [plugins.'io.containerd.internal.v1.opt']\nfoo=1",
    );
    let plugins = tree.table["plugins"].as_table().unwrap();
    assert!(!plugins.contains_key("io.containerd.gc.v1.scheduler"));
    assert_eq!(plugins["io.containerd.internal.v1.opt"].to_string(), "{ foo = 1 }");
    assert_eq!(tree.findings.warnings, Vec::<String>::new());
}

#[test]
fn a_main_socket_takes_the_shims_socket_along() {
    let tree = completed("version=4\n[plugins.'io.containerd.server.v1.grpc']\naddress='/a'\ngid=7");
    let ttrpc = &tree.table["plugins"]["io.containerd.server.v1.ttrpc"];
    assert_eq!(ttrpc.to_string(), "{ address = \"/a.ttrpc\", gid = 7, uid = 0 }");
}

#[test]
fn the_main_file_has_to_be_there() {
    assert!(read(Path::new("/nonexistent/x.toml")).unwrap_err().is_not_found());
}

#[test]
fn what_is_empty_and_nowhere_by_default_is_left_out() {
    let empty = "version=4\n[proxy_plugins]\n[stream_processors]\n\
                 [plugins.'io.containerd.cri.v1.images'.registry.mirrors]\n\
                 [plugins.'io.containerd.cri.v1.images'.registry.headers]\n\
                 [plugins.'io.containerd.transfer.v1.local']\nunpack_config=[]\n";
    assert_eq!(completed(empty).table, completed("version=4").table);
    let zero = "version=4\n[debug]\naddress=''\nuid=0\n[grpc]\nuid=0\n[metrics]\n\
                [plugins.'io.containerd.tracing.processor.v1.otlp']\nendpoint=''\ninsecure=false";
    assert_eq!(completed(zero).table, completed("version=4").table);
    let old = completed("version=4\n[grpc]\naddress='/a'").table["grpc"].to_string();
    assert_eq!(old, "{ address = \"/a\" }");
    let runtimes = "version=4\n[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.foo]";
    assert_ne!(completed(runtimes).table, completed("version=4").table);
}
