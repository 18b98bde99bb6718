//! `build`: the release binaries, where benches, suites and packagers take them from.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::{paths, program};

/// Without a dynamic linker and without relocations, an idle shim dirties a tenth of the memory.
const SHIM_FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static";

/// The shim is small rather than quick, and has nothing to unwind to. As settings of the release profile and not a profile
/// of its own, so that build scripts and proc macros are those of the other programs.
const SHIM_PROFILE: [(&str, &str); 4] = [
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "s"),
    ("CARGO_PROFILE_RELEASE_LTO", "fat"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
    ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
];

/// Builds the daemon, the client and the static shim; gives the directory that holds them.
pub fn build() -> Result<PathBuf> {
    let host = host()?;
    let target = paths::target();
    for name in ["containerd", "ctr"] {
        // The profile says so too, but cargo forgets that for a package with settings of its own.
        let build = ["rustc", "--release", "--locked", "--package", name, "--", "-C", "strip=symbols"];
        program::run(&mut program::cargo(&build))?;
    }
    // With --target the flags do not reach build scripts and proc macros, which stay as the other programs built them,
    // and what they reach has a directory of its own.
    let shim = ["build", "--release", "--locked", "--target", &host, "--package", "containerd-shim-runc-v2"];
    program::run(program::cargo(&shim).env("RUSTFLAGS", SHIM_FLAGS).envs(SHIM_PROFILE))?;
    let dist = paths::dist();
    fs::create_dir_all(&dist).with_context(|| format!("create {}", dist.display()))?;
    let from = [
        target.join("release/containerd"),
        target.join("release/ctr"),
        target.join(host).join("release/containerd-shim-runc-v2"),
    ];
    for path in from {
        let to = dist.join(path.file_name().context("a program has a name")?);
        // A copy that is running cannot be overwritten, but it can be replaced.
        let new = to.with_extension("new");
        fs::copy(&path, &new).with_context(|| format!("copy {}", path.display()))?;
        fs::rename(&new, &to).with_context(|| format!("replace {}", to.display()))?;
    }
    eprintln!("built: {}/{{containerd,ctr,containerd-shim-runc-v2}}", dist.display());
    Ok(dist)
}

fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = program::output(std::process::Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).context("rustc -vV does not name its host")
}
