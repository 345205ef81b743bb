//! What must hold on real nodes: real kubelets, containerd or CRI-O, runc, crun and CRIU.
//!
//! All tests share one cluster, each in namespaces of its own. [`smoke`] is the few that tell whether
//! anything works at all; the rest are in a module for each subject.

#![allow(clippy::expect_used)]

mod agent;
mod agents;
mod alerts;
mod alerts_prometheus;
mod book;
mod chart;
mod collector;
mod controller;
mod crds;
mod deployed;
mod faults;
mod host;
mod image;
mod install;
mod inventory;
mod kubelet;
mod legacy;
mod manifests;
mod mishaps;
mod plugin;
mod pods;
mod quota;
mod restarts;
mod retention;
mod rights;
mod schedule_faults;
mod schedule_proofs;
mod schedules;
mod smoke;
mod support;
