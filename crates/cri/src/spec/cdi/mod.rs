//! CDI: devices that a vendor describes in files, by what a container must get to use them (Container Device Interface 1.1).
//!
//! ```text
//!  names       vendor/class=device, in requests and annotations
//!  registry    the files: which devices there are
//!  edits       what is changed in a spec
//!  yaml        the part of YAML that such files are written in
//! ```
//!
//! Files are read when a container asks for a device, so that what a vendor's tool has just written counts.

mod edits;
mod names;
mod registry;
mod yaml;

use std::path::PathBuf;

use api::cri::ContainerConfig;
use types::{Error, Result};

use super::document::Document;
use crate::config::Runtime;
use names::DeviceName;
use registry::Registry;

/// Gives a container the devices that its request names: in the field, then in annotations, each once.
pub(super) fn apply(document: &mut Document, config: &ContainerConfig, settings: &Runtime) -> Result<()> {
    let asked = |names: &mut dyn Iterator<Item = &String>| names.cloned().collect::<Vec<_>>();
    let mut names = asked(&mut config.cdi_devices.iter().map(|device| &device.name));
    if !settings.enable_cdi {
        return inject_by_name(document, &names, settings);
    }
    let annotated = names::of_annotations(&config.annotations)
        .map_err(|e| e.context("failed to parse CDI device annotations"))?;
    names.extend(annotated);
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(name.clone()));
    if names.is_empty() { Ok(()) } else { inject(document, &names, &settings.cdi_dirs) }
}

/// Gives a container these devices.
pub(super) fn inject_by_name(document: &mut Document, names: &[String], settings: &Runtime) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    if !settings.enable_cdi {
        let names = names.join(", ");
        let text = format!("CDI devices ({names}) requested but CDI support is explicitly disabled");
        return Err(Error::invalid(text));
    }
    inject(document, names, &settings.cdi_dirs)
}

/// What concerns all devices of a file once, then what concerns the device.
fn inject(document: &mut Document, names: &[String], dirs: &[PathBuf]) -> Result<()> {
    let failed = |e: Error| e.context("CDI device injection failed");
    let registry = Registry::read(dirs);
    let mut missing = Vec::new();
    let mut found = Vec::new();
    for name in names {
        match name.parse::<DeviceName>().ok().and_then(|device| registry.find(&device)) {
            Some(at) => found.push(at),
            None => missing.push(name.as_str()),
        }
    }
    if !missing.is_empty() {
        let mut text = format!("unresolvable CDI devices {}", missing.join(", "));
        for problem in registry.problems() {
            text.push_str(&format!("; {problem}"));
        }
        return Err(failed(Error::not_found(text)));
    }
    let mut done = std::collections::BTreeSet::new();
    for (file, device) in found {
        if done.insert(&file.path) {
            edits::apply(document, &file.edits).map_err(failed)?;
        }
        edits::apply(document, &device.edits).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use api::cri::CdiDevice;

    use super::*;
    use crate::spec::document::Mount;

    const FILE: &str = r#"---
cdiVersion: "0.6.0"
kind: vendor.com/gpu   # a comment
containerEdits:
  env:
  - ALL=1
  mounts:
  - hostPath: /opt/lib
    containerPath: /lib/vendor
    options: [ro, "nosuid"]
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/vendor0
      hostPath: /dev/null
    hooks:
    - hookName: createContainer
      path: /usr/bin/hook
      args: [hook, update]
      env:
        - A=b
- name: all
  containerEdits:
    env: [GPU=all]
    additionalGids: [44]
"#;

    fn given(config: &ContainerConfig, files: &[(&str, &str)]) -> Result<Document> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let settings = Runtime { cdi_dirs: vec![dir.path().to_owned()], ..Runtime::default() };
        let mut document = Document::default();
        document.process.user.uid = 1000;
        document.mounts.push(Mount { destination: "/lib/vendor".to_owned(), ..Mount::default() });
        apply(&mut document, config, &settings).map(|()| document)
    }

    fn asking(names: &[&str]) -> ContainerConfig {
        let device = |name: &&str| CdiDevice { name: (*name).to_owned() };
        ContainerConfig { cdi_devices: names.iter().map(device).collect(), ..ContainerConfig::default() }
    }

    #[test]
    fn a_device_brings_nodes_variables_mounts_and_hooks() {
        let mut config = asking(&["vendor.com/gpu=0", "vendor.com/gpu=0"]);
        config.annotations.insert("cdi.k8s.io/x".to_owned(), "vendor.com/gpu=all".to_owned());
        let document = given(&config, &[("gpu.yaml", FILE)]).unwrap();
        assert_eq!(document.process.env, ["ALL=1", "GPU=all"]);
        assert_eq!(document.process.user.additional_gids, [44]);
        let [device] = &document.linux.devices[..] else { panic!("{:?}", document.linux.devices) };
        assert_eq!(
            (device.path.as_str(), device.major, device.minor, device.uid),
            ("/dev/vendor0", 1, 3, Some(1000))
        );
        assert_eq!(document.linux.resources.devices[0].access, "rwm");
        let [mount] = &document.mounts[..] else { panic!("{:?}", document.mounts) };
        assert_eq!((mount.source.as_str(), mount.options.len()), ("/opt/lib", 2));
        let hook = &document.hooks["createContainer"][0];
        assert_eq!((&hook["path"], &hook["env"][0]), (&"/usr/bin/hook".into(), &"A=b".into()));
    }

    #[test]
    fn a_device_that_nobody_describes_is_named_with_what_could_not_be_read() {
        let files = [("bad.json", "{"), ("gpu.yaml", FILE)];
        let error =
            given(&asking(&["vendor.com/gpu=0", "vendor.com/gpu=9"]), &files).unwrap_err().to_string();
        assert!(error.contains("unresolvable CDI devices vendor.com/gpu=9; "), "{error}");
        assert!(error.contains("bad.json"), "{error}");
    }

    #[test]
    fn a_device_that_two_files_describe_is_nobodys() {
        let files = [("a.yaml", FILE), ("b.yaml", FILE)];
        assert!(given(&asking(&["vendor.com/gpu=0"]), &files).is_err());
    }

    #[test]
    fn where_it_is_turned_off_a_request_fails_and_annotations_are_only_that() {
        let settings = Runtime { enable_cdi: false, ..Runtime::default() };
        let error = apply(&mut Document::default(), &asking(&["a.b/c=d"]), &settings).unwrap_err();
        assert!(error.to_string().starts_with("CDI devices (a.b/c=d) requested but"), "{error}");
        let mut config = ContainerConfig::default();
        config.annotations.insert("cdi.k8s.io/x".to_owned(), "vendor.com/gpu=0".to_owned());
        assert!(apply(&mut Document::default(), &config, &settings).is_ok());
    }
}
