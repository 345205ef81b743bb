//! That the host is after a cluster as it was before, however the cluster ended.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use checkpoint_keeper_testcluster::paths::{Cache, State};
use checkpoint_keeper_testcluster::process::{Process, output};
use checkpoint_keeper_testcluster::{Cluster, wait};
use jiff::Timestamp;

use crate::support::{DEADLINE, NODES, counting_pod, program};

/// A cluster of this test's own.
const NAME: &str = "host-test";

/// What of the host a cluster could change.
#[derive(Debug, PartialEq, Eq)]
struct Host {
    mounts: BTreeSet<String>,
    interfaces: BTreeSet<String>,
    routes: String,
    settings: Vec<(String, String)>,
    cgroups: BTreeSet<String>,
    firewall: String,
    processes: Vec<String>,
    states: BTreeSet<String>,
}

impl Host {
    fn look() -> anyhow::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"));
        // The mount's number, its parent and its options count; the line as it is says all that.
        let mounts = read("/proc/self/mountinfo")?.lines().map(str::to_owned).collect();
        let interfaces = names("/sys/class/net");
        let settings = [
            "vm/overcommit_memory",
            "vm/panic_on_oom",
            "kernel/panic",
            "kernel/panic_on_oops",
            "kernel/keys/root_maxkeys",
            "kernel/keys/root_maxbytes",
            "kernel/hostname",
            "net/ipv4/ip_forward",
            "net/ipv4/conf/all/route_localnet",
            "net/ipv4/conf/all/rp_filter",
        ];
        let settings = settings
            .into_iter()
            .map(|name| Ok((name.to_owned(), read(&format!("/proc/sys/{name}"))?)))
            .collect::<anyhow::Result<_>>()?;
        let mut cgroups = BTreeSet::new();
        folders(Path::new("/sys/fs/cgroup"), &state()?.identity(), &mut cgroups);
        let firewall = Command::new("iptables-save").output().map(|output| output.stdout).unwrap_or_default();
        // Counters and times change by themselves.
        let rules = String::from_utf8_lossy(&firewall).lines().filter(|line| line.starts_with("-A")).count();
        Ok(Self {
            mounts,
            interfaces,
            routes: read("/proc/net/route")?,
            settings,
            cgroups,
            firewall: rules.to_string(),
            processes: processes()?,
            states: names(&state_root()?).into_iter().filter(|name| name.starts_with(NAME)).collect(),
        })
    }
}

fn state() -> anyhow::Result<State> {
    Ok(Cache::of_user()?.cluster(NAME))
}

fn state_root() -> anyhow::Result<String> {
    let root = state()?.root().parent().context("no folder of clusters")?.to_owned();
    Ok(root.to_string_lossy().into_owned())
}

fn names(folder: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| !name.ends_with(".logs")).collect()
}

/// The cgroups, but for those of other clusters: of the one that the other tests use, and of somebody's own.
fn folders(at: &Path, own: &str, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(at).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let others = name.strip_prefix("checkpoint-keeper-").is_some_and(|cluster| cluster != own);
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !others {
            found.insert(entry.path().display().to_string());
            folders(&entry.path(), own, found);
        }
    }
}

/// The processes that belong to this test's cluster, by what they were started with.
fn processes() -> anyhow::Result<Vec<String>> {
    let (mark, own) = (format!("clusters/{NAME}"), format!("checkpoint-keeper-{}/", state()?.identity()));
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let read = |file: &str| std::fs::read(entry.path().join(file)).unwrap_or_default();
        let (line, cgroup) = (read("cmdline"), read("cgroup"));
        let (line, cgroup) = (String::from_utf8_lossy(&line), String::from_utf8_lossy(&cgroup));
        if line.contains(&mark) || cgroup.contains(&own) {
            found.push(line.replace('\0', " "));
        }
    }
    Ok(found)
}

fn cluster(arguments: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["--name", NAME]).args(arguments).stdin(Stdio::null());
    command
}

fn keeper() -> anyhow::Result<Process> {
    Ok(checkpoint_keeper_testcluster::keeper::Keeper::find(&state()?)?.process)
}

/// Takes the cluster down whatever becomes of the test.
struct Clean;

impl Drop for Clean {
    fn drop(&mut self) {
        let _ = cluster(&["down"]).output();
    }
}

fn is_as_before(before: &Host) -> anyhow::Result<()> {
    wait::until("the host to be as before", DEADLINE, || {
        let now = Host::look()?;
        ensure!(now.mounts == before.mounts, "mounts: {:?}", difference(&before.mounts, &now.mounts));
        ensure!(now.cgroups == before.cgroups, "cgroups: {:?}", difference(&before.cgroups, &now.cgroups));
        ensure!(now == *before, "before: {before:?}\nnow: {now:?}");
        Ok(true)
    })
}

fn difference(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Vec<String> {
    one.symmetric_difference(other).cloned().collect()
}

#[test]
fn nothing_of_the_host_is_changed_however_a_cluster_ends() -> anyhow::Result<()> {
    let _clean = Clean;
    output(&mut cluster(&["down"]))?;
    let before = Host::look()?;

    // Taken down.
    output(&mut cluster(&["up", "--nodes", "1"]))?;
    ensure!(Host::look()? != before, "a cluster that is up cannot be told from none: this test sees nothing");
    output(&mut cluster(&["down"]))?;
    is_as_before(&before)?;

    // The keeper killed: its machines end with it, and taking down removes the rest.
    output(&mut cluster(&["up", "--nodes", "1"]))?;
    keeper()?.kill()?;
    output(&mut cluster(&["down"]))?;
    is_as_before(&before)?;

    // The owner killed: everything ends by itself.
    let mut owner = Command::new("sleep").arg("1000").spawn()?;
    output(&mut cluster(&["up", "--nodes", "1", "--owner", &owner.id().to_string()]))?;
    owner.kill()?;
    owner.wait()?;
    is_as_before(&before)?;

    // Killed while it comes up, ever later: the same.
    for millis in [300, 1_500, 4_000] {
        let mut up: Child = cluster(&["up", "--nodes", "1"]).stderr(Stdio::null()).spawn()?;
        // The moment is what varies, not something that is waited for.
        let end = std::time::Instant::now() + Duration::from_millis(millis);
        wait::until("the moment", DEADLINE, || Ok(std::time::Instant::now() >= end))?;
        up.kill()?;
        up.wait()?;
        is_as_before(&before)?;
    }
    Ok(())
}

/// Another cache, made of the same components, with clusters of its own.
struct OtherCache(tempfile::TempDir);

impl OtherCache {
    fn make() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let ours = folder.path().join("checkpoint-keeper");
        std::fs::create_dir(&ours)?;
        let clusters = Cache::of_user()?.folder("clusters");
        for entry in std::fs::read_dir(clusters.parent().context("no cache")?)?.flatten() {
            if entry.path() != clusters {
                std::os::unix::fs::symlink(entry.path(), ours.join(entry.file_name()))?;
            }
        }
        Ok(Self(folder))
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.env("XDG_CACHE_HOME", self.0.path()).args(["--name", &Cluster::name()]).args(arguments);
        command.stdin(Stdio::null());
        command
    }
}

impl Drop for OtherCache {
    fn drop(&mut self) {
        let _ = self.command(&["down"]).output();
    }
}

/// Two people of one machine, each with a home of his own, need not agree on names.
#[test]
fn a_cluster_of_the_same_name_in_another_cache_is_another_one() -> anyhow::Result<()> {
    let _whole = NODES.read();
    let ours = crate::support::cluster();
    let node = ours.nodes()[0];
    let namespace = ours.namespace("same-name")?;
    namespace.apply(&counting_pod("web", node, &["app"]))?;
    namespace.wait_until_running("web")?;
    let id = |nodes: &[checkpoint_keeper_testcluster::RunningContainer]| {
        nodes.first().map(|container| container.id.clone()).context("no container runs")
    };
    let before = id(&node.containers(namespace.name(), "web")?)?;

    let other = OtherCache::make()?;
    output(&mut other.command(&["up", "--nodes", "1"]))?;
    let theirs = output(&mut other.command(&["kubectl", "get", "namespaces"]))?;
    ensure!(!theirs.contains(namespace.name()), "it is ours: {theirs}");
    output(&mut other.command(&["down"]))?;

    ours.nodes().into_iter().try_for_each(|node| node.wait_until_ready(Timestamp::now(), DEADLINE))?;
    ensure!(id(&node.containers(namespace.name(), "web")?)? == before, "the container was ended");
    namespace.apply(&counting_pod("later", node, &["app"]))?;
    namespace.wait_until_running("later")
}
