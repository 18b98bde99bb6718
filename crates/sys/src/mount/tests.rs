//! Real mounts; they need root and skip themselves without.

use super::*;

fn bind(source: &Path, options: &[&str]) -> Mount {
    Mount {
        kind: "bind".to_owned(),
        source: source.to_string_lossy().into_owned(),
        target: String::new(),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
    }
}

fn tmpfs(target: &str) -> Mount {
    Mount {
        kind: "tmpfs".to_owned(),
        source: "tmpfs".to_owned(),
        target: target.to_owned(),
        options: vec!["size=64k".to_owned(), "nosuid".to_owned()],
    }
}

/// A directory whose mounts go with it.
struct Area(tempfile::TempDir);

impl Area {
    fn new() -> Option<Self> {
        rustix::process::geteuid().is_root().then(|| Self(tempfile::tempdir_in("/var/tmp").unwrap()))
    }

    fn dir(&self, name: &str) -> PathBuf {
        let dir = self.0.path().join(name);
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        drop(unmount_recursive(self.0.path(), UnmountFlags::DETACH));
    }
}

fn layers(area: &Area, count: usize, name: &str) -> Vec<String> {
    (0..count)
        .map(|i| {
            let dir = area.dir(&format!("{name}/{i}/fs"));
            std::fs::write(dir.join(format!("from-{i}")), "x").unwrap();
            dir.to_string_lossy().into_owned()
        })
        .collect()
}

fn overlay(area: &Area, lower: &[String]) -> Mount {
    Mount {
        kind: "overlay".to_owned(),
        source: "overlay".to_owned(),
        target: String::new(),
        options: vec![
            "index=off".to_owned(),
            format!("workdir={}", area.dir("work").display()),
            format!("upperdir={}", area.dir("upper").display()),
            format!("lowerdir={}", lower.join(":")),
        ],
    }
}

#[test]
fn a_read_only_bind_cannot_be_written() {
    let Some(area) = Area::new() else { return };
    let (source, target) = (area.dir("source"), area.dir("target"));
    std::fs::write(source.join("file"), "x").unwrap();
    mount_all(&[bind(&source, &["rbind", "ro", "rprivate"])], &target).unwrap();
    assert!(target.join("file").exists() && is_mount_point(&target).unwrap());
    let error = std::fs::write(target.join("other"), "x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ReadOnlyFilesystem);
    unmount(&target, UnmountFlags::empty()).unwrap();
    assert!(!target.join("file").exists());
}

#[test]
fn a_bind_keeps_the_flags_of_its_source_unless_they_are_cleared() {
    let Some(area) = Area::new() else { return };
    let (source, target) = (area.dir("source"), area.dir("target"));
    mount_all(&[tmpfs("")], &source).unwrap();
    let options =
        |target: &Path| table::read().unwrap().into_iter().find(|e| e.target == target).unwrap().options;
    mount_all(&[bind(&source, &["bind", "ro"])], &target).unwrap();
    assert!(options(&target).contains("nosuid") && options(&target).contains("ro"));
    unmount(&target, UnmountFlags::empty()).unwrap();
    mount_all(&[bind(&source, &["bind", "noexec", "suid"])], &target).unwrap();
    assert!(!options(&target).contains("nosuid") && options(&target).contains("noexec"));
}

#[test]
fn when_a_mount_fails_those_before_it_are_gone_again() {
    let Some(area) = Area::new() else { return };
    let target = area.dir("target");
    let bad = Mount { kind: "nosuchfs".to_owned(), source: "thing".to_owned(), ..Mount::default() };
    let error = mount_all(&[tmpfs(""), tmpfs("/"), bad], &target).unwrap_err().to_string();
    for part in ["thing", "target", "nosuchfs"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!is_mount_point(&target).unwrap());
}

#[test]
fn a_sub_target_cannot_leave_the_root_by_a_link() {
    let Some(area) = Area::new() else { return };
    let (root, outside) = (area.dir("root"), area.dir("outside"));
    std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
    let error = mount_all(&[tmpfs("link")], &root).unwrap_err();
    assert!(error.is_not_found(), "{error}");
    let inside = root.join(outside.strip_prefix("/").unwrap());
    std::fs::create_dir_all(&inside).unwrap();
    mount_all(&[tmpfs("../link")], &root).unwrap();
    assert!(is_mount_point(&inside).unwrap() && !is_mount_point(&outside).unwrap());
    unmount_all(&[tmpfs("../link")], &root, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&inside).unwrap());
}

#[test]
fn stacked_and_nested_mounts_are_all_unmounted() {
    let Some(area) = Area::new() else { return };
    let target = area.dir("target");
    mount_all(&[tmpfs(""), tmpfs("")], &target).unwrap();
    unmount(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());
    unmount(&target, UnmountFlags::empty()).unwrap();
    unmount(&target.join("nothing"), UnmountFlags::empty()).unwrap();

    mount_all(&[tmpfs("")], &target).unwrap();
    std::fs::create_dir(target.join("in ner")).unwrap();
    mount_all(&[tmpfs("in ner")], &target).unwrap();
    unmount_recursive(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());
}

#[test]
fn an_overlay_of_many_long_layers_is_mounted_in_both_ways() {
    let Some(area) = Area::new() else { return };
    let target = area.dir("target");
    let long = layers(&area, 150, &["long"; 50].join("-"));
    let mount = overlay(&area, &long);
    assert!(overlay::needs_more_than_a_page(&Options::parse(&mount.options).unwrap()));
    for way in [|m: &Mount, at: &Path| mount_all(std::slice::from_ref(m), at), overlay::tests::old_way] {
        way(&mount, &target).unwrap();
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 150);
        std::fs::write(target.join("new"), "x").unwrap();
        std::fs::remove_file(target.join("new")).unwrap();
        unmount(&target, UnmountFlags::empty()).unwrap();
        assert_eq!(std::fs::read_dir(&target).unwrap().count(), 0);
    }
}

#[test]
fn layers_with_paths_longer_than_the_kernels_strings_are_mounted() {
    let Some(area) = Area::new() else { return };
    let target = area.dir("target");
    let long = vec!["d".repeat(100); 4].join("/");
    let mut mount = overlay(&area, &layers(&area, 20, &long));
    for (i, kind) in [(1, "workdir"), (2, "upperdir")] {
        mount.options[i] = format!("{kind}={}", area.dir(&format!("{long}/{kind}")).display());
    }
    mount_all(&[mount], &target).unwrap();
    std::fs::write(target.join("new"), "x").unwrap();
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 21);
}

#[test]
fn the_kernels_reason_for_refusing_an_option_is_told() {
    let Some(area) = Area::new() else { return };
    let mut mount = overlay(&area, &layers(&area, 150, "layers-of-some-length-so-that-they-exceed-a-page"));
    mount.options.push("nosuchoption=1".to_owned());
    let error = mount_all(&[mount], &area.dir("target")).unwrap_err().to_string();
    assert!(error.contains("nosuchoption"), "{error}");
}

#[test]
fn a_temporary_mount_leaves_nothing_behind() {
    let Some(area) = Area::new() else { return };
    let (source, parent) = (area.dir("source"), area.dir("parent"));
    let empty = |dir: &Path| std::fs::read_dir(dir).unwrap().next().is_none();
    let temp = TempMount::below(&parent, &[bind(&source, &["rbind", "rw"])]).unwrap();
    std::fs::write(temp.path().join("file"), "x").unwrap();
    temp.close().unwrap();
    assert!(source.join("file").exists() && empty(&parent));

    let temp = TempMount::below(&parent, &[bind(&source, &["rbind", "rw"])]).unwrap();
    let busy = std::fs::File::open(temp.path().join("file")).unwrap();
    drop(temp);
    drop(busy);
    assert!(source.join("file").exists() && empty(&parent));

    TempMount::below(&parent, &[bind(&parent.join("nothing"), &["rbind"])]).unwrap_err();
    assert!(empty(&parent));
}

#[test]
fn a_sub_target_gets_its_flags() {
    let Some(area) = Area::new() else { return };
    let (root, source) = (area.dir("root"), area.dir("source"));
    area.dir("root/in");
    let bound = Mount { target: "in".to_owned(), ..bind(&source, &["rbind", "ro", "noexec", "private"]) };
    mount_all(std::slice::from_ref(&bound), &root).unwrap();
    let entry = table::read().unwrap().into_iter().find(|e| e.target == root.join("in")).unwrap();
    assert!(entry.options.starts_with("ro") && entry.options.contains("noexec"), "{entry:?}");
    assert!(entry.propagation.is_empty());
    unmount_all(&[bound], &root, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&root.join("in")).unwrap());
}

#[test]
fn owners_are_shifted_by_id_maps() {
    use std::os::unix::fs::MetadataExt;
    let Some(area) = Area::new() else { return };
    let (source, target) = (area.dir("source"), area.dir("target"));
    for id in [0, 5] {
        std::fs::write(source.join(id.to_string()), "x").unwrap();
        std::os::unix::fs::chown(source.join(id.to_string()), Some(id), Some(id)).unwrap();
    }
    let options = ["rbind", "ro", "uidmap=0:1000:10", "gidmap=0:2000:3,3:3000:10"];
    mount_all(&[bind(&source, &options)], &target).unwrap();
    let owner = |id: u32| {
        let metadata = std::fs::metadata(target.join(id.to_string())).unwrap();
        (metadata.uid(), metadata.gid())
    };
    assert_eq!((owner(0), owner(5)), ((1000, 2000), (1005, 3002)));
    assert!(std::fs::write(target.join("new"), "x").is_err());
    unmount(&target, UnmountFlags::empty()).unwrap();
    assert!(!is_mount_point(&target).unwrap());

    let error = mount_all(&[bind(&source, &["rbind", "uidmap=0:1:x", "gidmap=0:1:1"])], &target).unwrap_err();
    assert_eq!(error.class(), types::Class::InvalidArgument);
    assert!(!is_mount_point(&target).unwrap(), "a mount without its map is not left behind");
}

#[test]
fn the_lower_layers_of_an_overlay_are_shifted_and_what_is_written_is_not() {
    use std::os::unix::fs::MetadataExt;
    let Some(area) = Area::new() else { return };
    let layers = ["bottom", "middle"].map(|name| area.dir(name));
    let (upper, work, target) = (area.dir("upper"), area.dir("work"), area.dir("target"));
    for (id, layer) in layers.iter().enumerate() {
        let (file, id) = (layer.join(format!("{id}")), u32::try_from(id).unwrap());
        std::fs::write(&file, "x").unwrap();
        std::os::unix::fs::chown(&file, Some(id), Some(id)).unwrap();
    }
    let overlay = |maps: [&str; 2]| Mount {
        kind: "overlay".into(),
        source: "overlay".into(),
        target: String::new(),
        options: [
            maps[0].to_owned(),
            maps[1].to_owned(),
            format!("upperdir={}", upper.display()),
            format!("workdir={}", work.display()),
            format!("lowerdir={}:{}", layers[1].display(), layers[0].display()),
        ]
        .into(),
    };
    let mounts = [overlay(["uidmap=0:1000:10", "gidmap=0:2000:10"])];
    if let Err(error) = mount_all(&mounts, &target) {
        eprintln!("skipped: this kernel shifts no owners below an overlay: {error}");
        return;
    }
    let owner = |name: &str| std::fs::metadata(target.join(name)).map(|m| (m.uid(), m.gid())).unwrap();
    assert_eq!((owner("0"), owner("1")), ((1000, 2000), (1001, 2001)));
    std::fs::write(target.join("new"), "x").unwrap();
    std::os::unix::fs::chown(target.join("new"), Some(1005), Some(2005)).unwrap();
    assert_eq!(std::fs::metadata(upper.join("new")).unwrap().uid(), 1005);
    let on = || table::read().unwrap().into_iter().filter(|entry| entry.target == target).count();
    assert_eq!(on(), 1, "the layers are not left below the overlay");
    unmount(&target, UnmountFlags::empty()).unwrap();

    for maps in [["uidmap=0:1:x", "gidmap=0:1:1"], ["uidmap=0:1:1", "gidmap=0:1:1,0:1:1"]] {
        assert!(mount_all(&[overlay(maps)], &target).is_err());
        assert_eq!(on(), 0);
    }
    let mut broken = overlay(["uidmap=0:1000:10", "gidmap=0:2000:10"]);
    broken.options.retain(|option| !option.starts_with("workdir="));
    assert!(mount_all(&[broken], &target).is_err());
    assert_eq!(on(), 0, "an overlay that fails takes its layers with it");
}
