//! What `inspect` has to say about one archive, as data.

use std::path::Path;

use checkpoint_keeper_core::archive::{Engine, Format, Inspection, State, Statistics};
use checkpoint_keeper_core::checkpoint_time::Claims;
use checkpoint_keeper_core::engine::file::Stat;
use checkpoint_keeper_core::name::FileName;
use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// The file that an archive is.
#[derive(Debug, Clone, Copy)]
pub struct InspectedFile<'a> {
    /// Its name.
    pub name: &'a FileName,
    /// Where it lies.
    pub path: &'a Path,
    /// How it looks to the system.
    pub stat: &'a Stat,
    /// Whether there is a marker beside it.
    pub is_pinned: bool,
}

/// One archive.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspected {
    /// The file's name.
    pub file: String,
    /// The same, safe for a terminal.
    #[serde(skip)]
    pub shown: String,
    /// Where it lies.
    pub path: String,
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's UID.
    pub pod_uid: Option<String>,
    /// The container's name.
    pub container: Option<String>,
    /// The OCI runtime.
    pub runtime: Option<String>,
    /// The container engine.
    pub engine: Option<Engine>,
    /// When the checkpoint was taken.
    pub checkpointed_at: Timestamp,
    /// The file's size.
    pub size_bytes: u64,
    /// Whether it is whole.
    pub state: State,
    /// Whether a `.keep` marker beside it keeps it from ever being deleted.
    pub pinned: bool,
    /// What is wrong with it.
    pub problem: Option<String>,
    /// How its bytes are packed.
    pub format: Format,
    /// How many members it has.
    pub members: u64,
    /// The container's ID at the runtime.
    pub container_id: Option<String>,
    /// The image by name.
    pub image: Option<String>,
    /// The image by digest or ID.
    pub image_ref: Option<String>,
    /// When the container was made.
    pub created_at: Option<Timestamp>,
    /// How often the kubelet had restarted the container.
    pub restart_count: Option<u32>,
    /// When the container had been restored from an earlier checkpoint.
    pub restored_at: Option<Timestamp>,
    /// CRIU's figures of the dump.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "with_units")]
    pub statistics: Option<Statistics>,
}

impl Inspected {
    /// What was found in this file.
    pub fn new(file: &InspectedFile<'_>, found: Inspection) -> Self {
        let InspectedFile { name, path, stat, is_pinned } = file;
        let identity = found.contents.identity;
        let claims = Claims {
            inside: found.contents.checkpointed_at,
            name: name.checkpoint_time(),
            modified: stat.modified_at(),
        };
        Self {
            file: name.to_json_text().into_owned(),
            shown: name.to_string(),
            path: path.display().to_string(),
            namespace: identity.as_ref().map(|identity| identity.namespace.clone()),
            pod: identity.as_ref().map(|identity| identity.pod.clone()),
            pod_uid: identity.as_ref().and_then(|identity| identity.pod_uid.clone()),
            container: identity.map(|identity| identity.container),
            runtime: found.contents.runtime,
            engine: found.engine,
            // As it is written, also where that is in the future: here nothing is decided by it.
            checkpointed_at: claims.first().0,
            size_bytes: stat.size,
            state: found.contents.state,
            pinned: *is_pinned,
            problem: found.contents.problem,
            format: found.format,
            members: found.members,
            container_id: found.container_id,
            image: found.contents.image,
            image_ref: found.image_ref,
            created_at: found.created_at,
            restart_count: found.restart_count,
            restored_at: found.restored_at,
            statistics: found.statistics,
        }
    }
}

/// The same figures with the units of times in their names.
#[derive(Serialize)]
#[serde(remote = "Statistics", rename_all = "camelCase")]
struct StatisticsWithUnits {
    #[serde(rename = "freezingMicroseconds")]
    freezing_time: u32,
    #[serde(rename = "frozenMicroseconds")]
    frozen_time: u32,
    #[serde(rename = "memdumpMicroseconds")]
    memdump_time: u32,
    #[serde(rename = "memwriteMicroseconds")]
    memwrite_time: u32,
    #[serde(rename = "irmapResolveMicroseconds")]
    irmap_resolve_time: Option<u32>,
    pages_scanned: u64,
    pages_skipped_parent: u64,
    pages_written: u64,
    pages_lazy: u64,
    page_pipes: Option<u64>,
    page_pipe_buffers: Option<u64>,
    shared_pages_scanned: Option<u64>,
    shared_pages_skipped_parent: Option<u64>,
    shared_pages_written: Option<u64>,
}

#[allow(clippy::ref_option, reason = "serde hands it in like that")]
fn with_units<S: Serializer>(statistics: &Option<Statistics>, serializer: S) -> Result<S::Ok, S::Error> {
    match statistics {
        Some(statistics) => StatisticsWithUnits::serialize(statistics, serializer),
        None => serializer.serialize_none(),
    }
}
