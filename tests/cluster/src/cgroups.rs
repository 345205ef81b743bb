//! The cgroups of a machine: one below ours in each hierarchy (version 1), so that the machine's
//! kubelet can do as it likes below it, and so that everything in it can be found again.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::paths::State;
use crate::wait;

/// Where the hierarchies are mounted.
const MOUNTED: &str = "/sys/fs/cgroup";

/// The cgroups of one machine, one in each hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroups {
    folders: Vec<PathBuf>,
}

/// The hierarchies of this host by name; none where it has version 2 only.
pub fn hierarchies() -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(MOUNTED) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter(|entry| entry.path().join("tasks").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The folders that all machines of a cluster lie in, below the cgroup of whoever brings it up.
pub fn parents(cluster: &State) -> anyhow::Result<Vec<PathBuf>> {
    let own = std::fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let path_in = |hierarchy: &str| {
        let named = format!("name={hierarchy}");
        let lines = own.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            rest.split_once(':')
        });
        let mut paths =
            lines.filter(|(names, _)| *names == named || names.split(',').any(|name| name == hierarchy));
        paths.next().map_or("", |(_, path)| path.trim_matches('/')).to_owned()
    };
    let folder = |name: String| {
        let base = Path::new(MOUNTED).join(&name);
        base.join(path_in(&name)).join(format!("checkpoint-keeper-{}", cluster.identity()))
    };
    Ok(hierarchies().into_iter().map(folder).collect())
}

impl Cgroups {
    /// The cgroups of a machine below its cluster's.
    pub fn of(parents: &[PathBuf], machine: &str) -> Self {
        Self { folders: parents.iter().map(|parent| parent.join(machine)).collect() }
    }

    /// Makes them.
    pub fn make(&self) -> anyhow::Result<()> {
        for folder in &self.folders {
            for folder in folder.parent().into_iter().chain([folder.as_path()]) {
                make(folder).with_context(|| format!("cannot make the cgroup {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// Moves this process into them.
    pub fn join(&self) -> anyhow::Result<()> {
        for folder in &self.folders {
            let own = std::process::id().to_string();
            std::fs::write(folder.join("cgroup.procs"), own)
                .with_context(|| format!("cannot join the cgroup {}", folder.display()))?;
        }
        Ok(())
    }

    /// Thaws whatever is frozen: in version 1 a frozen process does not even die of SIGKILL.
    pub fn thaw(&self) {
        self.each(|folder| {
            // Only the freezer's have such a file.
            let state = folder.join("freezer.state");
            if state.exists() {
                let _ = std::fs::write(state, "THAWED");
            }
        });
    }

    /// The folder of this name in the freezer's hierarchy, at any depth.
    pub fn find_freezer(&self, name: &str) -> Option<PathBuf> {
        let mut found = None;
        self.each(|folder| {
            if folder.join("freezer.state").exists() && folder.ends_with(name) {
                found = Some(folder.to_owned());
            }
        });
        found
    }

    /// Kills whoever is still in them.
    pub fn kill(&self) {
        self.each(|folder| {
            let processes = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for pid in processes.lines().filter_map(|pid| pid.parse().ok()) {
                if let Some(process) = crate::process::Process::find(pid) {
                    let _ = process.signal(rustix::process::Signal::KILL);
                }
            }
        });
    }

    /// Removes them with everything below, as soon as the processes in them are gone.
    pub fn remove(&self) -> anyhow::Result<()> {
        wait::until("the machine's cgroups to empty", wait::SOON, || {
            self.thaw();
            self.kill();
            self.folders.iter().try_for_each(|folder| remove(folder)).map(|()| true).map_err(Into::into)
        })
    }

    /// Removes what is below them: a machine that was powered off leaves no cgroups, and old ones
    /// make a booting kubelet crawl for a minute.
    pub fn clear(&self) -> anyhow::Result<()> {
        wait::until("old cgroups to empty", wait::SOON, || {
            for folder in &self.folders {
                for child in children(folder) {
                    remove(&child)?;
                }
            }
            Ok(true)
        })
    }

    fn each(&self, mut act: impl FnMut(&Path)) {
        let mut waiting = self.folders.clone();
        while let Some(folder) = waiting.pop() {
            act(&folder);
            waiting.extend(children(&folder));
        }
    }
}

/// Removes the folders that machines lay in, if no machine is left.
pub fn remove_parents(parents: &[PathBuf]) -> anyhow::Result<()> {
    wait::until("the cluster's cgroups to empty", wait::SOON, || {
        parents.iter().try_for_each(|parent| remove(parent)).map(|()| true).map_err(Into::into)
    })
}

fn make(folder: &Path) -> io::Result<()> {
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Err(_) => return Ok(()),
        Ok(()) => {}
    }
    let Some(parent) = folder.parent() else { return Ok(()) };
    // Without processors and memory of its own a new cpuset takes no process.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        if parent.join(file).exists() {
            std::fs::write(folder.join(file), std::fs::read_to_string(parent.join(file))?)?;
            std::fs::write(folder.join("cgroup.clone_children"), "1")?;
        }
    }
    Ok(())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).collect()
}

fn remove(folder: &Path) -> io::Result<()> {
    for child in children(folder) {
        remove(&child)?;
    }
    match std::fs::remove_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
