//! Which members a checkpoint archive has, and which of them matter.

use super::json::{Config, Spec};
use super::statistics::Statistics;

/// What a walk found.
#[derive(Default)]
pub(super) struct Members {
    /// How many members there are; the headers that only extend another one are none.
    pub(super) count: u64,
    /// `config.dump`, or why it cannot be used.
    pub(super) config: Option<Result<Config, &'static str>>,
    /// `spec.dump`, or why it cannot be used.
    pub(super) spec: Option<Result<Spec, &'static str>>,
    /// `stats-dump`, if it is asked for and can be understood.
    pub(super) statistics: Option<Statistics>,
    /// Whether anything there is what a runtime writes into a checkpoint.
    pub(super) has_checkpoint_member: bool,
    /// Which of CRIU's images are there without which nothing can be restored.
    pub(super) images: Images,
    pub(super) wants_statistics: bool,
}

/// CRIU's images that every restore begins with, whatever the container was.
#[derive(Default)]
pub(super) struct Images {
    inventory: bool,
    pstree: bool,
}

impl Images {
    const INVENTORY: &str = "checkpoint/inventory.img";
    const PSTREE: &str = "checkpoint/pstree.img";

    pub(super) fn note(&mut self, name: &[u8]) {
        self.inventory |= name == Self::INVENTORY.as_bytes();
        self.pstree |= name == Self::PSTREE.as_bytes();
    }

    /// One that is not there.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match (self.inventory, self.pstree) {
            (false, _) => Some(Self::INVENTORY),
            (_, false) => Some(Self::PSTREE),
            _ => None,
        }
    }
}

/// What runtimes put at the top of a checkpoint archive: containerd, CRI-O and podman, as in
/// checkpointctl's `metadata` package. A directory's name stands for all that is in it.
pub(super) const CHECKPOINT_MEMBERS: [&[u8]; 13] = [
    b"checkpoint/",
    b"config.dump",
    b"spec.dump",
    b"stats-dump",
    b"dump.log",
    b"rootfs-diff.tar",
    b"deleted.files",
    b"status.dump",
    b"container.log",
    b"bind.mounts",
    b"network.status",
    b"devshm-checkpoint.tar",
    b"artifacts/",
];

impl Members {
    pub(super) fn new(wants_statistics: bool) -> Self {
        Self { wants_statistics, ..Self::default() }
    }

    pub(super) fn has_both_json_members(&self) -> bool {
        self.config.is_some() && self.spec.is_some()
    }
}

/// Whether a runtime writes a member of this name into a checkpoint.
pub(super) fn is_of_a_checkpoint(name: &[u8]) -> bool {
    let name = name.strip_prefix(b"./").unwrap_or(name);
    let is = |known: &&[u8]| if known.ends_with(b"/") { name.starts_with(known) } else { name == *known };
    CHECKPOINT_MEMBERS.iter().any(is)
}
