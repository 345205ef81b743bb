//! What the engine remembers across restarts: what it knew when it began, and what is to be kept from then on.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::discard::Discard;
use super::file::Stat;
use super::index::{Arrival, FirstSeen};
use super::litter::Stray;
use crate::archive::Contents;
use crate::creation::Creation;
use crate::identity::Identity;
use crate::name::FileName;
use crate::pods::{PodKey, PodRecord};
use crate::policy::PolicyRef;
use crate::reclaim::Reclaim;

/// What is remembered about one archive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The file that it is about.
    pub stat: Stat,
    /// What its bytes said.
    pub contents: Contents,
    /// When it was first seen.
    pub first_seen: FirstSeen,
    /// How far it may be dated by a clock that was not trusted.
    #[serde(default)]
    pub arrival: Arrival,
    /// How it came into being; none where this program did not ask for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub creation: Option<Creation>,
    /// Which boot an uptime in [`Self::first_seen`] is of; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
}

/// What became of the watermark's rounds, and in which boot: uptimes of two are not to be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RememberedReclaim {
    /// What became of them.
    pub reclaim: Reclaim,
    /// The boot that its times are of.
    pub boot: String,
}

/// What a catalog remembers.
#[derive(Debug, Default)]
pub struct Memory {
    /// Of archives.
    pub records: HashMap<FileName, Record>,
    /// Of the pods that they are of.
    pub pods: BTreeMap<PodKey, PodRecord>,
    /// Of markers without an archive.
    pub strays: HashMap<FileName, Stray>,
    /// Of requests to discard a file.
    pub discards: BTreeMap<FileName, Discard>,
    /// The UID of the cluster that the facts are from; none where it is unknown.
    pub cluster: Option<String>,
    /// Which policy governed each container's archives.
    pub governing: Vec<(Identity, PolicyRef)>,
    /// What became of the watermark's rounds.
    pub reclaim: Option<RememberedReclaim>,
}

/// What is to be remembered, and what forgotten: where there is nothing for a key, it is forgotten.
#[derive(Debug, Default)]
pub struct Changes {
    /// Archives.
    pub records: HashMap<FileName, Option<Record>>,
    /// Pods.
    pub pods: BTreeMap<PodKey, Option<PodRecord>>,
    /// Markers without an archive.
    pub strays: HashMap<FileName, Option<Stray>>,
    /// Requests to discard a file.
    pub discards: HashMap<FileName, Option<Discard>>,
    /// The UID of the cluster that says what is known of pods; none: the same as before.
    pub cluster: Option<String>,
    /// Which policy governs each container's archives.
    pub governing: HashMap<Identity, Option<PolicyRef>>,
    /// What became of the watermark's rounds; none: the same as before.
    pub reclaim: Option<RememberedReclaim>,
}

impl Changes {
    /// Whether there is nothing to remember or forget.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds later changes, which count where both are about the same.
    pub fn add(&mut self, later: Self) {
        self.records.extend(later.records);
        self.pods.extend(later.pods);
        self.strays.extend(later.strays);
        self.discards.extend(later.discards);
        self.cluster = later.cluster.or(self.cluster.take());
        self.governing.extend(later.governing);
        self.reclaim = later.reclaim.or(self.reclaim.take());
    }

    /// Remembers no longer what is to be forgotten: the next start finds that out by itself.
    pub fn forget_less(&mut self) {
        self.records.retain(|_, record| record.is_some());
        self.pods.retain(|_, record| record.is_some());
        self.strays.retain(|_, stray| stray.is_some());
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.records.len()
            + self.pods.len()
            + self.strays.len()
            + self.discards.len()
            + usize::from(self.cluster.is_some())
            + self.governing.len()
            + usize::from(self.reclaim.is_some())
    }
}
