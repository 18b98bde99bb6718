//! The options of the runtime: from the request, and for `delete`, which comes when nobody else knows them any more.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use api::containerd::runc::v1::Options;
use types::{Error, Result, ResultExt};

use crate::json::{self, Parser};

/// The options in a request; none is all defaults.
pub fn unpack(any: Option<api::ProtoAny>) -> Result<Options> {
    match any {
        Some(any) if !any.value.is_empty() => api::any::unpack(&api::any::from_wire(any)),
        Some(_) | None => Ok(Options::default()),
    }
}

/// Writes them into the bundle, as upstream does: `options.json`, and the command's name in `runtime`.
pub fn save(options: &Options, bundle: &Path) -> Result<()> {
    write(&bundle.join("options.json"), to_json(options).as_bytes())?;
    write(&bundle.join("runtime"), options.binary_name.as_bytes())
}

/// Reads them from the bundle; all defaults where there are none.
pub fn load(bundle: &Path) -> Result<Options> {
    let path = bundle.join("options.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Options::default()),
        Err(e) => return Err(Error::from(e).context(format!("open {}", path.display()))),
    };
    from_json(file).context(|| format!("read {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("write {}", path.display());
    let mut file = File::options();
    let mut file = file.write(true).create(true).truncate(true).mode(0o600).open(path).context(doing)?;
    std::io::Write::write_all(&mut file, bytes).context(doing)
}

fn to_json(options: &Options) -> String {
    let mut members = Vec::new();
    let mut add = |name: &str, value: String| members.push(format!("\"{name}\":{value}"));
    for (name, on) in [
        ("no_pivot_root", options.no_pivot_root),
        ("no_new_keyring", options.no_new_keyring),
        ("systemd_cgroup", options.systemd_cgroup),
    ] {
        if on {
            add(name, String::from("true"));
        }
    }
    for (name, number) in [("io_uid", options.io_uid), ("io_gid", options.io_gid)] {
        if number != 0 {
            add(name, number.to_string());
        }
    }
    for (name, text) in [
        ("shim_cgroup", &options.shim_cgroup),
        ("binary_name", &options.binary_name),
        ("root", &options.root),
        ("criu_image_path", &options.criu_image_path),
        ("criu_work_path", &options.criu_work_path),
    ] {
        if !text.is_empty() {
            let mut quoted = String::new();
            json::quote(text, &mut quoted);
            add(name, quoted);
        }
    }
    format!("{{{}}}", members.join(","))
}

fn from_json(source: impl std::io::Read) -> Result<Options> {
    let mut options = Options::default();
    let id = |n: u64| u32::try_from(n).map_err(|_| Error::invalid(format!("id {n} out of range")));
    Parser::new(source).object(|p, key| {
        match key {
            "no_pivot_root" => options.no_pivot_root = p.is_true()?,
            "no_new_keyring" => options.no_new_keyring = p.is_true()?,
            "systemd_cgroup" => options.systemd_cgroup = p.is_true()?,
            "io_uid" => options.io_uid = id(p.unsigned()?)?,
            "io_gid" => options.io_gid = id(p.unsigned()?)?,
            "shim_cgroup" => options.shim_cgroup = p.string()?,
            "binary_name" => options.binary_name = p.string()?,
            "root" => options.root = p.string()?,
            _ => p.skip()?,
        }
        Ok(())
    })?;
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_come_back_from_the_bundle() {
        let options = Options {
            no_pivot_root: true,
            io_uid: 1000,
            binary_name: "/usr/bin/crun \"x\"".into(),
            root: "/run/r".into(),
            ..Options::default()
        };
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), Options::default());
        save(&options, dir.path()).unwrap();
        assert_eq!(load(dir.path()).unwrap(), options);
        assert_eq!(std::fs::read_to_string(dir.path().join("runtime")).unwrap(), options.binary_name);
        assert_eq!(to_json(&Options::default()), "{}");
    }
}
