//! The default system call filter, as data.
//!
//! Everything that is not listed fails with EPERM. The list, and what a capability or an architecture adds to it, is
//! upstream's (contrib/seccomp of containerd 2.3, which is Docker's and moby's profile).

use serde::{Deserialize, Deserializer, Serialize};

/// A filter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Seccomp {
    /// What happens to calls that no rule names.
    pub default_action: String,
    /// The error they fail with, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_errno_ret: Option<u32>,
    /// `SCMP_ARCH_...`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub architectures: Vec<String>,
    /// `SECCOMP_FILTER_FLAG_...`.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub flags: Vec<String>,
    /// The socket of an agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_path: String,
    /// For the agent.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener_metadata: String,
    /// The rules.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub syscalls: Vec<Syscall>,
}

/// A rule: what happens to these calls if all conditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Syscall {
    /// By name; names that the kernel does not know are ignored.
    pub names: Vec<String>,
    /// `SCMP_ACT_...`.
    pub action: String,
    /// The error they fail with, if they do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errno_ret: Option<u32>,
    /// The conditions.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub args: Vec<Arg>,
}

/// A condition on an argument.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Arg {
    /// Which argument.
    pub index: u32,
    /// Compared with.
    pub value: u64,
    /// The second operand of a masked comparison.
    #[serde(skip_serializing_if = "is_zero")]
    pub value_two: u64,
    /// `SCMP_CMP_...`.
    pub op: String,
}

/// Profiles of Docker write `null` for an empty list, as Go does.
fn null_is_empty<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

const ALLOW: &str = "SCMP_ACT_ALLOW";
const ERRNO: &str = "SCMP_ACT_ERRNO";
const EQUAL: &str = "SCMP_CMP_EQ";
const LESS: &str = "SCMP_CMP_LT";
const GREATER: &str = "SCMP_CMP_GT";
const MASKED_EQUAL: &str = "SCMP_CMP_MASKED_EQ";

/// linux/socket.h.
const AF_ALG: u64 = 38;
/// linux/socket.h.
const AF_VSOCK: u64 = 40;
/// asm-generic/errno.h.
const ENOSYS: u32 = 38;
/// linux/sched.h: CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET.
const CLONE_NEW: u64 = 0x7e02_0000;

/// Allowed without conditions.
#[rustfmt::skip]
const ALLOWED: &[&str] = &[
    "accept", "accept4", "access", "adjtimex", "alarm", "bind", "brk", "cachestat", "capget", "capset",
    "chdir", "chmod", "chown", "chown32", "clock_adjtime", "clock_adjtime64", "clock_getres",
    "clock_getres_time64", "clock_gettime", "clock_gettime64", "clock_nanosleep", "clock_nanosleep_time64",
    "close", "close_range", "connect", "copy_file_range", "creat", "dup", "dup2", "dup3", "epoll_create",
    "epoll_create1", "epoll_ctl", "epoll_ctl_old", "epoll_pwait", "epoll_pwait2", "epoll_wait",
    "epoll_wait_old", "eventfd", "eventfd2", "execve", "execveat", "exit", "exit_group", "faccessat",
    "faccessat2", "fadvise64", "fadvise64_64", "fallocate", "fanotify_mark", "fchdir", "fchmod", "fchmodat",
    "fchmodat2", "fchown", "fchown32", "fchownat", "fcntl", "fcntl64", "fdatasync", "fgetxattr",
    "flistxattr", "flock", "fork", "fremovexattr", "fsetxattr", "fstat", "fstat64", "fstatat64", "fstatfs",
    "fstatfs64", "fsync", "ftruncate", "ftruncate64", "futex", "futex_requeue", "futex_time64",
    "futex_wait", "futex_waitv", "futex_wake", "futimesat", "getcpu", "getcwd", "getdents", "getdents64",
    "getegid", "getegid32", "geteuid", "geteuid32", "getgid", "getgid32", "getgroups", "getgroups32",
    "getitimer", "getpeername", "getpgid", "getpgrp", "getpid", "getppid", "getpriority", "getrandom",
    "getresgid", "getresgid32", "getresuid", "getresuid32", "getrlimit", "get_robust_list", "getrusage",
    "getsid", "getsockname", "getsockopt", "get_thread_area", "gettid", "gettimeofday", "getuid",
    "getuid32", "getxattr", "getxattrat", "inotify_add_watch", "inotify_init", "inotify_init1",
    "inotify_rm_watch", "io_cancel", "ioctl", "io_destroy", "io_getevents", "io_pgetevents",
    "io_pgetevents_time64", "ioprio_get", "ioprio_set", "io_setup", "io_submit", "ipc", "kill",
    "landlock_add_rule", "landlock_create_ruleset", "landlock_restrict_self", "lchown", "lchown32",
    "lgetxattr", "link", "linkat", "listen", "listmount", "listxattr", "listxattrat", "llistxattr",
    "_llseek", "lremovexattr", "lseek", "lsetxattr", "lsm_get_self_attr", "lsm_list_modules",
    "lsm_set_self_attr", "lstat", "lstat64", "madvise", "membarrier", "memfd_create", "memfd_secret",
    "mincore", "mkdir", "mkdirat", "mknod", "mknodat", "mlock", "mlock2", "mlockall", "map_shadow_stack",
    "mmap", "mmap2", "mprotect", "mq_getsetattr", "mq_notify", "mq_open", "mq_timedreceive",
    "mq_timedreceive_time64", "mq_timedsend", "mq_timedsend_time64", "mq_unlink", "mremap", "mseal",
    "msgctl", "msgget", "msgrcv", "msgsnd", "msync", "munlock", "munlockall", "munmap", "name_to_handle_at",
    "nanosleep", "newfstatat", "_newselect", "open", "openat", "openat2", "pause", "pidfd_open",
    "pidfd_send_signal", "pipe", "pipe2", "pkey_alloc", "pkey_free", "pkey_mprotect", "poll", "ppoll",
    "ppoll_time64", "prctl", "pread64", "preadv", "preadv2", "prlimit64", "process_mrelease", "pselect6",
    "pselect6_time64", "pwrite64", "pwritev", "pwritev2", "read", "readahead", "readlink", "readlinkat",
    "readv", "recv", "recvfrom", "recvmmsg", "recvmmsg_time64", "recvmsg", "remap_file_pages",
    "removexattr", "removexattrat", "rename", "renameat", "renameat2", "restart_syscall", "rmdir", "rseq",
    "rt_sigaction", "rt_sigpending", "rt_sigprocmask", "rt_sigqueueinfo", "rt_sigreturn", "rt_sigsuspend",
    "rt_sigtimedwait", "rt_sigtimedwait_time64", "rt_tgsigqueueinfo", "sched_getaffinity", "sched_getattr",
    "sched_getparam", "sched_get_priority_max", "sched_get_priority_min", "sched_getscheduler",
    "sched_rr_get_interval", "sched_rr_get_interval_time64", "sched_setaffinity", "sched_setattr",
    "sched_setparam", "sched_setscheduler", "sched_yield", "seccomp", "select", "semctl", "semget", "semop",
    "semtimedop", "semtimedop_time64", "send", "sendfile", "sendfile64", "sendmmsg", "sendmsg", "sendto",
    "setfsgid", "setfsgid32", "setfsuid", "setfsuid32", "setgid", "setgid32", "setgroups", "setgroups32",
    "setitimer", "setpgid", "setpriority", "setregid", "setregid32", "setresgid", "setresgid32",
    "setresuid", "setresuid32", "setreuid", "setreuid32", "setrlimit", "set_robust_list", "setsid",
    "setsockopt", "set_thread_area", "set_tid_address", "setuid", "setuid32", "setxattr", "setxattrat",
    "shmat", "shmctl", "shmdt", "shmget", "shutdown", "sigaltstack", "signalfd", "signalfd4", "sigprocmask",
    "sigreturn", "socketcall", "socketpair", "splice", "stat", "stat64", "statfs", "statfs64", "statmount",
    "statx", "symlink", "symlinkat", "sync", "sync_file_range", "syncfs", "sysinfo", "tee", "tgkill",
    "time", "timer_create", "timer_delete", "timer_getoverrun", "timer_gettime", "timer_gettime64",
    "timer_settime", "timer_settime64", "timerfd_create", "timerfd_gettime", "timerfd_gettime64",
    "timerfd_settime", "timerfd_settime64", "times", "tkill", "truncate", "truncate64", "ugetrlimit",
    "umask", "uname", "unlink", "unlinkat", "uretprobe", "utime", "utimensat", "utimensat_time64", "utimes",
    "vfork", "vmsplice", "wait4", "waitid", "waitpid", "write", "writev",
];

/// What a capability of the bounding set adds.
const BY_CAPABILITY: &[(&str, &[&str])] = &[
    ("CAP_DAC_READ_SEARCH", &["open_by_handle_at"]),
    ("CAP_SYS_ADMIN", ADMIN),
    ("CAP_SYS_BOOT", &["reboot"]),
    ("CAP_SYS_CHROOT", &["chroot"]),
    ("CAP_SYS_MODULE", &["delete_module", "init_module", "finit_module"]),
    ("CAP_SYS_PACCT", &["acct"]),
    (
        "CAP_SYS_PTRACE",
        &["kcmp", "pidfd_getfd", "process_madvise", "process_vm_readv", "process_vm_writev", "ptrace"],
    ),
    ("CAP_SYS_RAWIO", &["iopl", "ioperm"]),
    ("CAP_SYS_TIME", &["settimeofday", "stime", "clock_settime", "clock_settime64"]),
    ("CAP_SYS_TTY_CONFIG", &["vhangup"]),
    ("CAP_SYS_NICE", &["get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"]),
    ("CAP_SYSLOG", &["syslog"]),
    ("CAP_BPF", &["bpf"]),
    ("CAP_PERFMON", &["perf_event_open"]),
];

const ADMIN: &[&str] = &[
    "bpf",
    "clone",
    "clone3",
    "fanotify_init",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "lookup_dcookie",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "setdomainname",
    "sethostname",
    "setns",
    "syslog",
    "umount",
    "umount2",
    "unshare",
];

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn allow(names: &[&str]) -> Syscall {
    Syscall { names: owned(names), action: ALLOW.into(), ..Default::default() }
}

/// Allows `name` if its first argument compares with `value`.
fn allow_if(name: &str, op: &str, value: u64) -> Syscall {
    Syscall { args: vec![Arg { value, op: op.into(), ..Default::default() }], ..allow(&[name]) }
}

/// The architectures whose calls a process of this one can make.
fn architectures() -> Vec<String> {
    owned(match std::env::consts::ARCH {
        "x86_64" => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "aarch64" => &["SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64"],
        "s390x" => &["SCMP_ARCH_S390", "SCMP_ARCH_S390X"],
        "riscv64" => &["SCMP_ARCH_RISCV64"],
        "loongarch64" => &["SCMP_ARCH_LOONGARCH64"],
        _ => &[],
    })
}

/// What only this architecture has.
fn of_architecture() -> Option<Syscall> {
    let names: &[&str] = match std::env::consts::ARCH {
        "x86_64" => &["arch_prctl", "modify_ldt"],
        "x86" => &["modify_ldt"],
        "powerpc64" => &["sync_file_range2", "swapcontext"],
        "arm" | "aarch64" => &[
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "sync_file_range2",
            "breakpoint",
            "cacheflush",
            "set_tls",
        ],
        "s390x" => &["s390_pci_mmio_read", "s390_pci_mmio_write", "s390_runtime_instr"],
        "riscv64" => &["riscv_flush_icache", "riscv_hwprobe"],
        _ => return None,
    };
    Some(allow(names))
}

/// The profile for a process with this bounding set.
pub fn default_profile(bounding: &[String]) -> Seccomp {
    let mut syscalls = vec![
        allow(ALLOWED),
        // Every address family but AF_ALG and AF_VSOCK. Three rules of one condition each: runc splits conditions
        // on the same argument into rules of their own, so that two `!=` would allow both.
        allow_if("socket", LESS, AF_ALG),
        allow_if("socket", EQUAL, AF_ALG + 1),
        allow_if("socket", GREATER, AF_VSOCK),
    ];
    syscalls
        .extend([0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff].map(|value| allow_if("personality", EQUAL, value)));
    // Safe since Linux 4.8; we need a later kernel anyhow.
    syscalls.push(allow(&["process_vm_readv", "process_vm_writev", "ptrace"]));
    syscalls.extend(of_architecture());
    let added =
        bounding.iter().filter_map(|name| BY_CAPABILITY.iter().find(|(capability, _)| capability == name));
    syscalls.extend(added.map(|(_, names)| allow(names)));
    if !bounding.iter().any(|name| name == "CAP_SYS_ADMIN") {
        syscalls.push(clone_without_namespaces());
        // Its flags are behind a pointer, out of a filter's reach: libc falls back to clone on ENOSYS.
        let action = ERRNO.to_owned();
        let clone3 =
            Syscall { names: owned(&["clone3"]), action, errno_ret: Some(ENOSYS), ..Default::default() };
        syscalls.push(clone3);
    }
    Seccomp { default_action: ERRNO.into(), architectures: architectures(), syscalls, ..Default::default() }
}

fn clone_without_namespaces() -> Syscall {
    // The flags are the second argument there.
    let index = if std::env::consts::ARCH == "s390x" { 1 } else { 0 };
    let flags = Arg { index, value: CLONE_NEW, value_two: 0, op: MASKED_EQUAL.into() };
    Syscall { args: vec![flags], ..allow(&["clone"]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprivileged_processes_make_no_namespaces() {
        let profile = default_profile(&owned(&["CAP_SYS_CHROOT"]));
        assert!(profile.syscalls.iter().all(|rule| !rule.names.contains(&"mount".into())));
        assert!(profile.syscalls.iter().any(|rule| rule.names == ["chroot"]));
        let clone3 = profile.syscalls.iter().find(|rule| rule.names == ["clone3"]).unwrap();
        assert_eq!((clone3.action.as_str(), clone3.errno_ret), (ERRNO, Some(ENOSYS)));
    }

    #[test]
    fn a_profile_may_say_null_for_an_empty_list() {
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","x":1,"syscalls":[{"names":["a"],"action":"b","args":null}]}"#;
        let profile: Seccomp = serde_json::from_str(text).unwrap();
        assert_eq!(profile.syscalls[0].names, ["a"]);
    }

    #[test]
    fn administrators_may_mount() {
        let profile = default_profile(&owned(&["CAP_SYS_ADMIN"]));
        assert!(profile.syscalls.iter().any(|rule| rule.names.contains(&"mount".into())));
        assert!(profile.syscalls.iter().all(|rule| rule.names != ["clone3"]));
    }
}
