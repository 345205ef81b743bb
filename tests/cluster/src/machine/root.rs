//! A machine's root file system: the Debian tree below, memory above, its own disks in their places.

use std::ffi::CString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_bind_recursive, mount_change,
    unmount,
};

use super::{CHECKPOINTS, IMAGES, MACHINE, PKI, SHARED, Spec};
use crate::cgroups;
use crate::paths::State;
use crate::runtime::STORAGE;

/// Where machines look for programs.
pub const PROGRAM_PATH: &str =
    "/cluster/bin:/cluster/crio:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Settings that a kubelet writes, and that are the host's: it gets files of its own over them.
const KUBELET_SETTINGS: &[(&str, &str)] = &[
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// Makes the root file system and moves into it.
pub(super) fn assemble(spec: &Spec) -> anyhow::Result<()> {
    let state = State::at(spec.state.clone());
    let machine = state.machine(&spec.name);
    let layers = machine.join("layers");
    make_dirs(&layers)?;
    memory(&layers, "mode=755")?;
    let (upper, work, root) = (layers.join("upper"), layers.join("work"), layers.join("root"));
    for folder in [&upper, &work, &root] {
        make_dirs(folder)?;
    }
    let options =
        format!("lowerdir={},upperdir={},workdir={}", spec.debian.display(), upper.display(), work.display());
    mounted("overlay", &root, "overlay", &options)?;
    let inside = |path: &str| root.join(path.trim_start_matches('/'));
    mounted("proc", &inside("/proc"), "proc", "")?;
    mounted("sysfs", &inside("/sys"), "sysfs", "")?;
    mount_bind_recursive("/dev", inside("/dev")).context("cannot mount /dev")?;
    memory(&inside("/run"), "mode=755")?;
    memory(&inside("/tmp"), "mode=1777")?;
    bind(&spec.kubernetes, &inside("/cluster/bin"))?;
    bind(&state.pki(), &inside(PKI))?;
    bind(&machine, &inside(MACHINE))?;
    bind(&state.images(), &inside(IMAGES))?;
    bind(&state.shared(), &inside(SHARED))?;
    if spec.node().is_some() {
        // The node's disks outlive a reboot: the keeper holds them.
        bind(&machine.join("disk/kubelet"), &inside("/var/lib/kubelet"))?;
        bind(&machine.join("checkpoints"), &inside(CHECKPOINTS))?;
        bind(&machine.join("disk/containerd"), &inside("/var/lib/containerd"))?;
        bind(&machine.join("disk/containers"), &inside(STORAGE))?;
        own_cgroups(&inside("/sys/fs/cgroup"))?;
        if let Some(crio) = &spec.crio {
            bind(crio, &inside("/cluster/crio"))?;
            list_own_controllers(&inside("/run/controllers"), &inside("/proc/cgroups"))?;
        }
        let settings = inside("/run/settings");
        for (setting, value) in KUBELET_SETTINGS {
            let file = settings.join(setting);
            make_dirs(file.parent().unwrap_or(&settings))?;
            fs::write(&file, value)?;
            let over = inside("/proc/sys").join(setting);
            mount_bind(&file, &over).with_context(|| format!("cannot mount over {}", over.display()))?;
        }
    }
    name_machine(spec, &root)?;
    enter(&root)
}

fn name_machine(spec: &Spec, root: &Path) -> anyhow::Result<()> {
    rustix::system::sethostname(spec.name.as_bytes()).context("cannot set the host name")?;
    fs::write(root.join("etc/hostname"), &spec.name)?;
    let mut hosts = fs::File::create(root.join("etc/hosts"))?;
    writeln!(hosts, "127.0.0.1 localhost\n10.77.0.1 {}", super::CONTROL_PLANE)?;
    for node in &spec.cluster.nodes {
        writeln!(hosts, "{} {}", node.ip(), node.name)?;
    }
    // There is no name server, and nobody is to ask the host's.
    let resolver = root.join("etc/resolv.conf");
    let _ = fs::remove_file(&resolver);
    Ok(fs::write(resolver, "nameserver 127.0.0.1\n")?)
}

fn enter(root: &Path) -> anyhow::Result<()> {
    let old = root.join("old-root");
    make_dirs(&old)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    std::env::set_current_dir(root)?;
    rustix::process::pivot_root(".", "old-root").context("cannot pivot")?;
    std::env::set_current_dir("/")?;
    unmount("/old-root", UnmountFlags::DETACH).context("cannot let go of the host's files")?;
    fs::remove_dir("/old-root")?;
    // As systemd does it, and as container runtimes expect it.
    Ok(mount_change("/", MountPropagationFlags::SHARED | MountPropagationFlags::REC)?)
}

/// The hierarchies once more, so that their roots are what this machine's cgroup namespace shows.
fn own_cgroups(at: &Path) -> anyhow::Result<()> {
    let hierarchies = cgroups::hierarchies();
    memory(at, "mode=755")?;
    for name in hierarchies {
        let folder = at.join(&name);
        make_dirs(&folder)?;
        let options = if name == "systemd" { "none,name=systemd".to_owned() } else { name };
        mounted("cgroup", &folder, "cgroup", &options)?;
    }
    Ok(())
}

/// CRI-O takes it that every controller of `/proc/cgroups` has a hierarchy: those are left out that have none.
fn list_own_controllers(list: &Path, over: &Path) -> anyhow::Result<()> {
    let all = fs::read_to_string(over).with_context(|| format!("cannot read {}", over.display()))?;
    let has_hierarchy = |line: &&str| line.starts_with('#') || line.split_whitespace().nth(1) != Some("0");
    let own: Vec<&str> = all.lines().filter(has_hierarchy).collect();
    fs::write(list, own.join("\n") + "\n")?;
    mount_bind(list, over).with_context(|| format!("cannot mount over {}", over.display()))
}

fn memory(at: &Path, options: &str) -> anyhow::Result<()> {
    mounted("tmpfs", at, "tmpfs", options)
}

fn mounted(source: &str, at: &Path, kind: &str, options: &str) -> anyhow::Result<()> {
    let data = CString::new(options)?;
    mount(source, at, kind, MountFlags::empty(), data.as_c_str())
        .with_context(|| format!("cannot mount {kind} at {}", at.display()))
}

fn bind(from: &Path, to: &PathBuf) -> anyhow::Result<()> {
    make_dirs(to)?;
    mount_bind(from, to).with_context(|| format!("cannot mount {} at {}", from.display(), to.display()))
}

fn make_dirs(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))
}
