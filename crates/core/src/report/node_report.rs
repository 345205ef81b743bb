//! The report of a node's plan, written row by row: the rows of many archives are not all in memory at once.

use serde::ser::{Serialize, SerializeStruct, Serializer};

use super::{FileSystem, MOST_DRY_RUNS, Row, Totals, differences, dry_run_policies, in_order, watermark};
use crate::engine::View;

/// What a [`Report`](super::Report) of the same view has, and the node's name.
#[derive(Debug, Clone, Copy)]
pub struct NodeReport<'a> {
    /// The node's name.
    pub node: &'a str,
    /// The directory's path.
    pub directory: &'a str,
    /// The plan and what it was made from.
    pub view: &'a View,
}

struct Rows<'a>(&'a View);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let View { snapshot, plan, .. } = self.0;
        serializer.collect_seq(
            in_order(snapshot)
                .into_iter()
                .filter_map(|place| Some(Row::new(snapshot.archives.get(place)?, plan.verdicts.get(place)?))),
        )
    }
}

impl Serialize for NodeReport<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let View { snapshot, policies, plan, made_at, .. } = self.view;
        let mut report = serializer.serialize_struct("NodeReport", 7)?;
        report.serialize_field("node", self.node)?;
        report.serialize_field("directory", self.directory)?;
        report.serialize_field("filesystem", &FileSystem::of(snapshot))?;
        report.serialize_field("archives", &Rows(self.view))?;
        report.serialize_field("totals", &Totals::of(snapshot, plan))?;
        let dry_runs = differences(snapshot, policies, *made_at, plan, MOST_DRY_RUNS);
        report.serialize_field("dryRunPolicies", &dry_run_policies(snapshot, &dry_runs))?;
        report.serialize_field("watermark", &plan.watermark.map(watermark))?;
        report.end()
    }
}
