//! The container runtimes that nodes can have, and where they differ for whoever uses a node.

use std::path::Path;

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::fault::Daemon;
use crate::image;

/// What the kubelet speaks to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "lower")]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Debian's
    #[default]
    Containerd,
    /// Built here
    CriO,
}

impl Runtime {
    /// The environment variable that names the one that is wanted.
    pub const VARIABLE: &str = "CHECKPOINT_KEEPER_RUNTIME";

    /// The one that the environment names, if it names one.
    pub fn of_environment() -> anyhow::Result<Option<Self>> {
        let Ok(name) = std::env::var(Self::VARIABLE) else { return Ok(None) };
        let runtime = Self::from_str(&name, false).map_err(anyhow::Error::msg);
        runtime.map(Some).with_context(|| format!("{} is {name:?}", Self::VARIABLE))
    }

    /// Its name in commands.
    pub fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "crio",
        }
    }

    /// Its name in archives, as checkpointctl puts it.
    pub fn engine(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::CriO => "CRI-O",
        }
    }

    /// Its daemon.
    pub fn daemon(self) -> Daemon {
        match self {
            Self::Containerd => Daemon::Containerd,
            Self::CriO => Daemon::Crio,
        }
    }

    /// Where the kubelet finds it.
    pub fn socket(self) -> &'static str {
        match self {
            Self::Containerd => "/run/containerd/containerd.sock",
            Self::CriO => "/run/crio/crio.sock",
        }
    }

    /// A command that its daemon has to answer, and that changes nothing.
    pub fn question(self) -> Vec<&'static str> {
        match self {
            Self::Containerd => vec!["ctr", "--namespace=k8s.io", "containers", "ls"],
            Self::CriO => vec!["crio", "status", "info"],
        }
    }

    /// What the freezer's cgroup of a container is called.
    pub fn cgroup(self, container: &str) -> String {
        match self {
            Self::Containerd => container.to_owned(),
            Self::CriO => format!("crio-{container}"),
        }
    }

    /// The command that imports an image. `archive` is the file as this process sees it, `inside` as the node does.
    pub fn import(self, archive: &Path, inside: &str) -> anyhow::Result<Vec<String>> {
        let words = match self {
            Self::Containerd => {
                ["ctr", "--namespace=k8s.io", "images", "import", inside].map(str::to_owned).to_vec()
            }
            Self::CriO => {
                let reference = image::reference(archive)?;
                let to = format!("containers-storage:[overlay@{STORAGE}+{STORAGE_RUN}]{reference}");
                ["skopeo", "--insecure-policy", "copy", "--quiet", &format!("oci-archive:{inside}"), &to]
                    .map(str::to_owned)
                    .to_vec()
            }
        };
        Ok(words)
    }
}

/// Where CRI-O has images and containers.
pub(crate) const STORAGE: &str = "/var/lib/containers/storage";
/// And what of these ends with the machine.
pub(crate) const STORAGE_RUN: &str = "/run/containers/storage";
