//! Who may use whom: the table of docs/architecture.md as data. A better cut is welcome: change the table and say why in
//! docs/decisions.

/// The only crate with unsafe code.
pub const UNSAFE: &str = "sys";

/// The shim's package.
pub const SHIM: &str = "containerd-shim-runc-v2";

/// Crates of tables and numbers, without C, whose name suggests otherwise; the second is ours.
pub const SHIM_SYS: [&str; 2] = ["linux-raw-sys", "containerd-sys"];

/// Each room and the rooms that it may use; below what stands above.
pub const LAW: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("sys", &["types"]),
    ("api", &["types"]),
    ("grpc", &["types", "api"]),
    ("content", &["types", "sys"]),
    ("snapshots", &["types", "sys"]),
    ("mounts", &["types", "sys"]),
    ("registry", &["types"]),
    ("diff", &["types", "sys", "content"]),
    ("remote", &["types", "api", "grpc", "content", "snapshots", "diff"]),
    ("metadata", &["types", "sys", "content", "snapshots"]),
    ("images", &["types", "sys", "content", "snapshots", "diff", "registry"]),
    ("runtime", &["types", "sys", "api", "grpc"]),
    ("tasks", &["types", "sys", "api", "mounts", "metadata", "runtime"]),
    ("cni", &["types", "sys"]),
    ("nri", &["types", "sys", "api", "runtime"]),
    (
        "cri",
        &[
            "types",
            "sys",
            "api",
            "grpc",
            "content",
            "snapshots",
            "diff",
            "mounts",
            "metadata",
            "images",
            "remote",
            "tasks",
            "runtime",
            "cni",
            "nri",
        ],
    ),
    ("oci-runtime", &["types", "sys"]),
    ("shim", &["types", "sys", "api", "oci-runtime"]),
    (
        "ctr",
        &[
            "types",
            "sys",
            "api",
            "grpc",
            "content",
            "snapshots",
            "diff",
            "images",
            "registry",
            "remote",
            "cni",
        ],
    ),
    (
        "containerd",
        &[
            "types",
            "sys",
            "api",
            "grpc",
            "content",
            "snapshots",
            "diff",
            "mounts",
            "metadata",
            "images",
            "registry",
            "remote",
            "tasks",
            "runtime",
            "cni",
            "nri",
            "cri",
        ],
    ),
    ("tests", &["types", "sys", "api", "grpc", "registry", "remote"]),
    ("bench", &["api", "grpc", "registry", "tests"]),
    ("xtask", &[]),
];

/// A package's room: its name without the project's.
pub fn room(package: &str) -> String {
    match package {
        SHIM => "shim".to_owned(),
        "containerd" => "containerd".to_owned(),
        other => other.strip_prefix("containerd-").unwrap_or(other).to_owned(),
    }
}
