//! Where things lie: the cache of what machines are made of, and the state of each cluster.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// The one folder that everything of ours lies in: `$XDG_CACHE_HOME/checkpoint-keeper`.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// The cache of this user.
    pub fn of_user() -> anyhow::Result<Self> {
        let set = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        Ok(Self { root: base.context("neither XDG_CACHE_HOME nor HOME is set")?.join("checkpoint-keeper") })
    }

    /// A folder in it.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The state of the cluster of this name.
    pub fn cluster(&self, name: &str) -> State {
        State { root: self.root.join("clusters").join(name) }
    }
}

/// What belongs to one cluster, from its start to its end.
#[derive(Debug, Clone)]
pub struct State {
    root: PathBuf,
}

impl State {
    /// Its folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The state that a folder holds.
    pub fn at(root: PathBuf) -> Self {
        Self { root }
    }

    /// The cluster's name.
    pub fn name(&self) -> String {
        self.root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }

    /// What tells it from every other cluster of this machine, also from one of its name in another cache: the name, and
    /// a digest of where it lies. For what all clusters of a machine share.
    pub fn identity(&self) -> String {
        let digest = Sha256::digest(self.root.as_os_str().as_encoded_bytes());
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        format!("{}-{digest}", self.name())
    }

    /// Certificates and kubeconfigs.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// Images that every node imports when it boots.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// What all machines see at `/cluster/shared`.
    pub fn shared(&self) -> PathBuf {
        self.root.join("shared")
    }

    /// A machine's folder, which it sees at `/cluster/machine`.
    pub fn machine(&self, name: &str) -> PathBuf {
        self.root.join("machines").join(name)
    }

    /// What the keeper's and the machines' daemons said.
    pub fn logs(&self, name: &str) -> PathBuf {
        self.machine(name).join("log")
    }

    /// The description that everything else follows from.
    pub fn description(&self) -> PathBuf {
        self.root.join("cluster.json")
    }

    /// Which process keeps the cluster, and the ports it forwards.
    pub fn keeper(&self) -> PathBuf {
        self.root.join("keeper.json")
    }

    /// The administrator's kubeconfig, for programs of the host.
    pub fn kubeconfig(&self) -> PathBuf {
        self.pki().join("admin.kubeconfig")
    }
}

/// Writes a file whole, or leaves the old one.
pub fn write_json(path: &Path, value: &impl Serialize) -> anyhow::Result<()> {
    let partial = path.with_extension("partial");
    std::fs::write(&partial, serde_json::to_vec_pretty(value)?)
        .and_then(|()| std::fs::rename(&partial, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Reads what [`write_json`] wrote.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> anyhow::Result<T> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&bytes).with_context(|| format!("{} is damaged", path.display()))
}
