use std::fs;
use std::path::Path;

use super::*;

fn list(name: &str, kind: &str) -> String {
    format!(r#"{{"name":"{name}","cniVersion":"1.0.0","plugins":[{{"type":"{kind}"}}]}}"#)
}

fn networks(dir: &Path, most: usize) -> Networks {
    Networks::new(Settings {
        plugin_dirs: vec![dir.join("bin")],
        conf_dir: dir.join("net.d"),
        cache: dir.join("cache"),
        most,
        ..Settings::default()
    })
}

fn names(networks: &Networks) -> Vec<(String, String)> {
    networks.list().into_iter().map(|(interface, network)| (interface, network.name().to_owned())).collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[tokio::test]
async fn a_network_that_is_put_there_or_taken_away_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("net.d");
    let networks = networks(dir.path(), 0);
    let wanted = format!("cni plugin not initialized: no network config found in {}", conf.display());
    assert_eq!(networks.status().await.unwrap_err().to_string(), wanted);
    fs::create_dir(&conf).unwrap();
    fs::write(conf.join("20.conflist"), list("b", "x")).unwrap();
    networks.status().await.unwrap();
    assert_eq!(names(&networks), pairs(&[("eth0", "b")]));
    fs::write(conf.join("10.conflist"), list("a", "x")).unwrap();
    networks.status().await.unwrap();
    assert_eq!(names(&networks), pairs(&[("eth0", "a"), ("eth1", "b")]));
    fs::write(conf.join("10.conflist"), "garbage").unwrap();
    let error = networks.status().await.unwrap_err();
    assert_eq!(error.class(), Class::Unavailable);
    let text = error.to_string();
    assert!(text.starts_with("cni plugin not initialized: failed to load CNI config list file "), "{text}");
    assert!(networks.list().is_empty());
    fs::remove_dir_all(&conf).unwrap();
    assert_eq!(networks.status().await.unwrap_err().to_string(), wanted);
}

#[tokio::test]
async fn the_loopback_interface_is_the_first_if_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("net.d")).unwrap();
    fs::write(dir.path().join("net.d/10.conflist"), list("a", "x")).unwrap();
    fs::write(dir.path().join("net.d/20.conflist"), list("b", "x")).unwrap();
    let settings = networks(dir.path(), 1).settings;
    let networks = Networks::new(Settings { loopback: Loopback::Plugin, ..settings });
    networks.refresh().unwrap();
    assert_eq!(names(&networks), pairs(&[("lo", "cni-loopback"), ("eth0", "a")]));
}

#[test]
fn what_is_gone_is_no_error_of_a_removal() {
    let error = |text: &str| Error::unknown(text);
    assert!(is_gone(&error("open netns: no such file or directory"), ""));
    assert!(!is_gone(&error("open netns: no such file or directory"), "/proc/1/ns/net"));
    assert!(is_gone(&error("interface not found"), "/proc/1/ns/net"));
    assert!(!is_gone(&error("failed to find plugin \"x\" in path [/opt/cni/bin]"), ""));
}
